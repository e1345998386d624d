// In place of the theme's file of this name: 1.5 MB of icons as a script. Its font has the same icons.
