"""The claims on the front page, in groups that follow from the records."""

import re

from bs4 import BeautifulSoup

from dcil import records
from dcil.lab import checkout
from dcil.lab.book import front_page
from dcil.lab.evidence import claims
from tests.lab.fakes import fake_claim, fake_runs

KNOWN = claims.read_claims(checkout.root() / "book" / "claims.yml")
FOUND = records.load_all(checkout.root() / "records")


def test_claims_stand_in_groups():
    """Claims stand by verdict; those with too few seeds are one line that opens. No cell says "not run"."""
    one, other = fake_claim(claim="a < b"), fake_claim(id="other", evidence={"paper": {"sparsity": 0.9}})
    page = BeautifulSoup(
        front_page.claims_page([one, other], fake_runs(ste=(80, 80.2, 80.1), dcil=(81, 81.1, 81.2))), "html.parser"
    )
    assert [h.text for h in page.find_all("h3")] == ["Holds: 1"]
    assert (
        page.find("td").text.startswith("a < b")
        and page.find("summary").text == "Too few seeds for a verdict so far: 1"
    )
    assert [th.text for th in page.find_all("th")] == ["claim", "claimed by", "tier quick"]
    few = front_page.claims_page([one], fake_runs(ste=(80,), dcil=(81,)))
    assert "1 of 3 seeds." in few and "<table" not in few
    assert not re.search("not (yet )?run", front_page.claims_page(KNOWN, FOUND))


def test_the_count_has_the_words_of_the_groups():
    """Every claim is counted once, under the heading of its group."""
    numbers = [int(n) for n in re.findall(r"\d+", front_page.count_in_words(KNOWN, FOUND))]
    assert numbers[0] == len(KNOWN) == sum(numbers[1:])
    assert numbers[1:] == [len(group.rows) for group in front_page.claim_groups(KNOWN, FOUND)]


def test_what_a_group_means_is_true_of_every_kind_of_claim():
    """A claim of equality holds without an effect, and falls with one: neither has to do with an advantage."""
    for group in front_page.claim_groups([], []):
        assert "advantage" not in group.meaning and "as large" not in group.meaning
