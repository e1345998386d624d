"""What chapters compute before the reader's eyes."""
