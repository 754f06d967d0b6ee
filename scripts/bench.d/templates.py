"""The 200 templates of the start-up workload: a site with a layout, macros, partials and pages."""

from __future__ import annotations

from pathlib import Path

PARTIALS = ("header", "nav", "aside", "card", "footer")
PAGES = 193
COUNT = PAGES + len(PARTIALS) + 2  # a layout and a file of macros

LAYOUT = """<!doctype html>
<html lang="en">
<head><title>{% block title %}{{ site.title }}{% end %}</title></head>
<body class="{% block class %}plain{% end %}">
{% include "partials/header.html" %}
{% include "partials/nav.html" %}
<main>{% block content %}{% end %}</main>
{% include "partials/aside.html" %}
{% include "partials/footer.html" %}
</body>
</html>
"""

MACROS = """{% def field(label, value, unit="") %}<dt>{{ label }}</dt><dd>{{ value }}{{ unit }}</dd>{% end %}
{% def badge(text, kind="info") %}<span class="badge {{ kind }}">{{ text | upper }}</span>{% end %}
"""

PARTIAL = """<section class="{name}">
{{% for item in site.items %}}
  {{% if item.level > 1 %}}<a href="{{{{ item.url }}}}">{{{{ item.title | upper }}}}</a>{{% else %}}<b>{{{{ item.title }}}}</b>{{% end %}}
{{% end %}}
</section>
"""

PAGE = """{{% extends "layout.html" %}}
{{% from "macros.html" import field, badge %}}
{{% block title %}}Page {number} of {{{{ site.title }}}}{{% end %}}
{{% block class %}}kind-{kind}{{% end %}}
{{% block content %}}
<h1>{{{{ badge("page {number}") }}}}</h1>
{{% set total = 0 %}}
{{% for row in rows %}}
<article id="a{number}-{{{{ loop.index }}}}">
  <h2>{{{{ row.title | title }}}}</h2>
  {{% if row.level > {threshold} %}}<p class="high">{{{{ row.text | truncate(40) }}}}</p>
  {{% elif row.level == {threshold} %}}<p class="same">{{{{ row.text }}}}</p>
  {{% else %}}<p class="low">{{{{ row.text | lower }}}}</p>{{% end %}}
  <dl>{{{{ field("level", row.level) }}}}{{{{ field("depth", row.level * {kind}, " m") }}}}</dl>
</article>
{{% end %}}
{{% include "partials/card.html" %}}
<p>Text of page {number} that is the same whenever it is rendered.</p>
{{% end %}}
"""

CONTEXT = {
    "site": {
        "title": "The Lighthouse Almanac",
        "items": [{"title": f"Item {n}", "url": f"/{n}", "level": n % 4} for n in range(6)],
    },
    "rows": [{"title": f"row {n}", "text": "A lamp is lit at dusk. " * 4, "level": n} for n in range(8)],
}


def write(folder: Path) -> None:
    """Writes all of them."""
    (folder / "partials").mkdir()
    (folder / "layout.html").write_text(LAYOUT)
    (folder / "macros.html").write_text(MACROS)
    for name in PARTIALS:
        (folder / "partials" / f"{name}.html").write_text(PARTIAL.format(name=name))
    for number in range(PAGES):
        page = PAGE.format(number=number, kind=number % 7, threshold=number % 5)
        (folder / f"page{number:03}.html").write_text(page)


def names() -> list[str]:
    """What is rendered; the rest is loaded by these."""
    return [f"page{number:03}.html" for number in range(PAGES)]
