"""`write.py PAGE ROWS`: puts the rows between the page's two marks."""

import sys
from pathlib import Path

BEGIN, END = "<!-- rows: scripts/engines --write -->\n", "<!-- end of rows -->\n"
page, rows = Path(sys.argv[1]), Path(sys.argv[2]).read_text(encoding="utf-8")
text = page.read_text(encoding="utf-8")
before, rest = text.split(BEGIN)
old, after = rest.split(END)
head = "".join(old.splitlines(keepends=True)[:2])
# The rows of engines that did not run this time stay.
kept = {tuple(line.split("|")[1:4]): line for line in old.splitlines(keepends=True)[2:]}
kept.update({tuple(line.split("|")[1:4]): line for line in rows.splitlines(keepends=True)})
page.write_text(before + BEGIN + head + "".join(kept.values()) + END + after, encoding="utf-8")
