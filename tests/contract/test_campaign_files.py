"""Wrong campaign files and the problems they get: pairs of `<name>.yaml` and `<name>.txt` in campaign_files/."""

from __future__ import annotations

from pathlib import Path

import pytest

from campaigns.loading import load_campaigns
from kernel.errors import InputError
from tests.integration.campaigning import CAMPAIGN, make_workspace, put

FOLDER = Path(__file__).parent / "campaign_files"
EXTRA = {
    "templates/broken/subject.txt": "Hello {{ contact.firstname }}\n",
    "templates/broken/body.html": "<p>{{ nobody.name }}</p>\n",
}


def problems_of(name: str, root: Path) -> list[str]:
    workspace = make_workspace(root)
    for path, text in EXTRA.items():
        put(root, path, text)
    (root / "campaigns" / f"{name}.yaml").write_bytes((FOLDER / f"{name}.yaml").read_bytes())
    with pytest.raises(InputError) as caught:
        load_campaigns(workspace)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.yaml")))
def test_a_wrong_file_gets_every_problem_at_once_with_its_place(name: str, tmp_path: Path) -> None:
    expected = (FOLDER / f"{name}.txt").read_text(encoding="utf-8").splitlines()
    assert problems_of(name, tmp_path) == expected


def test_problems_of_several_files_come_together(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path, one=CAMPAIGN.replace("hello", "helo"), two=CAMPAIGN + "tempo: fast\n")
    put(tmp_path, "segments/british.yaml", "subject: acount\nwhere: {everyone: true}\n")
    put(tmp_path, "campaigns/three.yml", CAMPAIGN)
    with pytest.raises(InputError) as caught:
        load_campaigns(workspace, ["one", "two", "tow"])
    paths = [problem.path for problem in caught.value.problems]
    assert paths == [
        "campaigns",
        "campaigns/one.yaml",
        "campaigns/three.yml",
        "campaigns/two.yaml",
        "segments/british.yaml",
    ]
