"""`bengal_site.py BENGAL`: makes a site whose kida cache (.bengal/cache/kida) is in $FOLDER, builds it, edits it and
builds it again, and writes to $RESULT a line for each step: it passed if the build did and the page has
the text of the last edit."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

FOLDER, RESULT, BENGAL = Path(os.environ["FOLDER"]), Path(os.environ["RESULT"]), sys.argv[1]
SITE = FOLDER.with_name(FOLDER.name + ".work") / "site"
lines = []


def run(*arguments):
    return subprocess.run(
        [BENGAL, *arguments], cwd=SITE, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def step(name, *wanted):
    built = run("build")
    texts = [path.read_text(encoding="utf-8", errors="replace") for path in SITE.glob("public/**/*.html")]
    missing = [text for text in wanted if not any(text in page for page in texts)]
    entries = list((SITE / ".bengal/cache/kida").glob("__kida_*.pyc"))
    passed = built.returncode == 0 and not missing and entries
    if not passed:
        print(name, built.returncode, missing, len(entries), built.stdout[-2000:], built.stderr[-2000:])
    lines.append(f"{'passed' if passed else 'failed'} {name}")


def page(number, text):
    body = f"---\ntitle: Page {number}\n---\n\n# Page {number}\n\n{text}\n"
    (SITE / f"content/page-{number}.md").write_text(body)


SITE.parent.mkdir()
subprocess.run(
    [BENGAL, "new", "site", "--name", SITE.name, "--no-init"],
    cwd=SITE.parent,
    stdin=subprocess.DEVNULL,
    check=True,
    capture_output=True,
)
(SITE / ".bengal/cache").mkdir(parents=True)
# As a mount over the folder would: what is beneath .bengal/cache/kida is $FOLDER.
(SITE / ".bengal/cache/kida").symlink_to(FOLDER, target_is_directory=True)
for number in range(12):
    page(number, f"first text of {number}")
step("built", "first text of 3")
step("nothing-changed", "first text of 3")
page(3, "second text of 3")
step("page-edited", "second text of 3", "first text of 4")
templates = SITE / "templates"
themes = (
    Path(
        subprocess.run(
            [sys.executable, "-c", "import bengal; print(bengal.__path__[0])"],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    )
    / "themes/default/templates"
)
base = (themes / "base.html").read_text(encoding="utf-8")
for edit in range(4):
    marked = base.replace("</body>", f"<p>template edit {edit}</p></body>")
    assert marked != base
    (templates / "base.html").write_text(marked, encoding="utf-8")
    step(f"template-edited-{edit}", f"template edit {edit}")
shutil.rmtree(SITE / "public")
step("built-again", "template edit 3", "second text of 3")
RESULT.write_text("\n".join(lines) + "\n")
