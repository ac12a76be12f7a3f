"""The report: one whole HTML file with everything in it, and nothing from anywhere else."""

import json
import math
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from plotly.offline import get_plotlyjs

import browser
import torch_plateau.cli.report as report
from torch_plateau import replay
from torch_plateau.cli.annotate import annotate
from torch_plateau.cli.report import write_report
from torch_plateau.cli.report_figures import replay_figure
from torch_plateau.histories.findings.history import Finding
from torch_plateau.histories.sweep import sweep

TEXTBOOK = [0.50, 0.45, 0.44, 0.44, 0.44, 0.43, 0.43, 0.43, 0.43, 0.43]
EVIL = "</script><script>alert('&')</script>"
HOSTILE = (
    EVIL + "<img src=x onerror='alert(1)'><a href='javascript:alert(1)'>\u202e\"'%{x}{{7*7}}`${1}`"
)
# What a page does that it should not, heard from before its own scripts.
LISTENER = """<script>
const heard = [];
for (const name of ["error", "unhandledrejection", "securitypolicyviolation"])
  addEventListener(name, each => heard.push(name + ": " + (each.message || each.blockedURI)), true);
for (const name of ["alert", "confirm", "prompt", "open", "fetch"])
  window[name] = () => heard.push(name);
for (const name of ["error", "warn"]) console[name] = (...said) => heard.push(said.join(" "));
addEventListener("load", () => setTimeout(() => {
  for (const each of performance.getEntriesByType("resource")) heard.push(each.name);
  document.documentElement.setAttribute("data-heard", JSON.stringify(heard));
}, 500));
</script>"""
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """What is in a page: its tags, well nested, and its texts by tag."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], {}
        self.feed(text)
        self.close()
        assert self.open == [], "tags that were not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts.setdefault(self.open[-1], []).append(data)

    def count(self, tag, **attrs):
        return sum(t == tag and attrs.items() <= a.items() for t, a in self.tags)


def written(tmp_path, history=TEXTBOOK, labels=("run",), title="A run", **keywords):
    """Write a report and return its text without plotly's library."""
    given = {name: keywords.pop(name) for name in ("findings", "sweep") if name in keywords}
    metric = torch.tensor(history, dtype=torch.float64)
    result = replay(metric, record="all", **{"lr": 0.1, "patience": 3, **keywords})
    out = tmp_path / "report.html"
    write_report(
        out,
        title=title,
        metric=metric,
        results=result,
        rows=annotate(metric, result),
        labels=list(labels),
        **{"findings": [], **given},
    )
    text = out.read_text("utf-8")
    assert text.count(get_plotlyjs()) == 1
    return text.replace(get_plotlyjs(), "")


def figures_in(text):
    """The data of each figure, as a browser would get them."""
    calls = re.findall(r'Plotly\.newPlot\(\s*"([^"]*)",\s*', text)
    decoder, found = json.JSONDecoder(), []
    for name in calls:
        start = re.search(rf'Plotly\.newPlot\(\s*"{name}",\s*', text).end()
        found.append(decoder.raw_decode(text, start)[0])
    return found


def test_the_table_is_that_of_the_epochs(tmp_path):
    page = Page(written(tmp_path))
    assert page.texts["h1"] == ["A run"]
    assert page.count("tr", **{"class": "cut"}) == 1
    cells = page.texts["td"]
    assert "bad 4 > patience 3: cut 0.1 -> 0.01" in cells
    assert "\u2702" in cells, "a cut is marked by more than a colour"
    assert cells.count("better: new best") == 3


def test_the_picture_holds_the_numbers_and_the_words(tmp_path):
    (traces,) = figures_in(written(tmp_path))
    named = {trace["name"]: trace for trace in traces}
    assert named["metric: run"]["y"] == TEXTBOOK
    assert named["best: run"]["y"] == [0.5, 0.45, 0.44, 0.44, 0.44, *[0.43] * 5]
    assert named["gate: run"]["y"][0] is None
    assert named["rate: run"]["y"] == pytest.approx([0.1] * 9 + [0.01])
    assert named["cuts: run (1)"]["x"] == [10]
    told = named["metric: run"]["customdata"][9]
    assert told == ["0.43", "0.43", "0.429957", "0.01", "bad 4 > patience 3: cut 0.1 -> 0.01"]


def test_nothing_is_asked_of_any_host(tmp_path):
    text = written(tmp_path, sweep=sweep(TEXTBOOK, patience=[1, 2], progress=False))
    assert not re.search(r"https?:|src=|@import|url\(|<link|//cdn", text)
    policy = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    assert text.count('"showSendToCloud": false') == 3
    assert f'content="{policy}img-src data: blob:"' in text


def test_text_of_users_is_shown_and_not_run(tmp_path):
    finding = Finding("code", "problem", EVIL, {})
    swept = sweep({EVIL: TEXTBOOK}, patience=[1, 2], progress=False)
    text = written(tmp_path, title=EVIL, labels=[EVIL], findings=[finding], sweep=swept)
    assert "<script>alert" not in text
    page = Page(text)
    for tag in ("title", "h1"):
        assert "".join(page.texts[tag]) == EVIL
    assert EVIL in "".join(page.texts["li"])
    assert EVIL in "".join(page.texts["h2"])
    names = [trace["name"] for trace in figures_in(text)[0]]
    assert not any("<script" in name for name in names)


def test_findings_settings_and_lanes_are_listed(tmp_path):
    finding = Finding("overfitting", "problem", "It overfits.", {})
    labels = ["patience 2", "patience 5"]
    page = Page(written(tmp_path, labels=labels, findings=[finding], patience=[2, 5]))
    assert "overfitting): It overfits." in "".join(page.texts["li"])
    assert page.texts["th"].count("patience 2") == 1
    assert {"2", "5", "min", "0.0001"} <= set(page.texts["td"])


def test_the_first_six_of_many_lanes_are_in_the_picture(tmp_path):
    text = written(tmp_path, labels=[str(i) for i in range(8)], patience=list(range(8)))
    assert len(figures_in(text)[0]) == 6 * 5
    assert "first 6 of 8 lanes" in text


def test_a_sweep_adds_two_maps(tmp_path):
    swept = sweep(TEXTBOOK, patience=[2, 3, 9], threshold=[1e-4, 0.5], progress=False)
    _, cuts, first = figures_in(written(tmp_path, sweep=swept))
    assert cuts[0]["text"] == [["1", "1", "0"], ["3", "2", "0"]]
    assert first[0]["z"] == [[9, 10, None], [4, 5, None]]
    assert first[0]["text"][0][2] == "never"


@pytest.mark.parametrize(
    "history",
    [[], [1.0], [math.nan, math.inf, -math.inf, 1.0], [-1.0] * 300],
    ids=["none", "one", "not numbers", "long"],
)
def test_odd_histories_give_whole_pages(tmp_path, history):
    text = written(tmp_path, history, nan="cut")
    Page(text)
    for figure in figures_in(text):
        json.dumps(figure, allow_nan=False)


def test_a_bare_metric_needs_no_replay(tmp_path):
    out = tmp_path / "r.html"
    write_report(
        out, title="t", metric=torch.ones(3), results=None, rows=None, findings=[], labels=["loss"]
    )
    text = out.read_text("utf-8").replace(get_plotlyjs(), "")
    assert figures_in(text)[0][0]["y"] == [1, 1, 1]
    assert "Settings" not in Page(text).texts.get("h2", [])


def test_a_report_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    written(tmp_path)
    old = (tmp_path / "report.html").read_bytes()

    class Full:
        def encode(self, *_):
            raise OSError("no space left")

    monkeypatch.setattr("jinja2.Template.render", lambda *_, **__: Full())
    with pytest.raises(OSError, match="no space left"):
        written(tmp_path)
    assert (tmp_path / "report.html").read_bytes() == old
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_template_is_part_of_the_package():
    assert (Path(report.__file__).parent / "report.html.j2").is_file()


def test_a_missing_plotly_is_an_import_error_that_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ModuleNotFoundError, match=r"plotly\.offline"):
        written(tmp_path)


def test_a_long_history_is_folded_and_its_curves_keep_their_ends(tmp_path):
    history = torch.linspace(1.0, 0.9, 40_000).double()
    history[20_000:] = 1.0
    history[30_000] = 5.0
    text = written(tmp_path, history.tolist(), patience=3_000)
    page = Page(text)
    assert page.count("tr") < 200
    folded = [cell for cell in page.texts["td"] if " epochs: " in cell]
    epochs = [cell for cell in page.texts["td"] if cell.isdigit()]
    assert sum(int(cell.split()[0]) for cell in folded) > 39_000
    assert {"1", "40000"} <= set(epochs)
    assert "Of 40,000 epochs it shows the lowest and highest" in text
    (traces,) = figures_in(text)
    metric = next(trace for trace in traces if trace["name"] == "metric: run")
    assert len(metric["x"]) < 30_000
    assert metric["y"][metric["x"].index(30_001)] == 5.0
    assert len(text) < 8_000_000


def opened(page, folder):
    """What a browser made of a page: its tags with attributes, and what was heard."""
    path = folder / "opened.html"
    path.write_text(page.replace("<title>", f"{LISTENER}<title>", 1), "utf-8")
    text, log = browser.opened(path, folder / "profile", milliseconds=5_000)
    dom = HTMLParser()
    tags = []
    dom.handle_starttag = lambda tag, attrs: tags.append((tag, dict(attrs)))
    dom.feed(text.replace(get_plotlyjs(), ""))
    (heard,) = [attrs["data-heard"] for tag, attrs in tags if tag == "html"]
    console = [line for line in log.splitlines() if "CONSOLE" in line]
    return tags, [*json.loads(heard), *console], text


if browser.BROWSER:  # elsewhere there is nothing to open a page in

    def test_a_browser_shows_hostile_names_and_runs_asks_and_says_nothing(tmp_path):
        finding = Finding("code", "problem", HOSTILE, {})
        swept = sweep({HOSTILE: TEXTBOOK}, patience=[1, 2], progress=False)
        names = {"labels": [HOSTILE, f"{HOSTILE}2"], "title": HOSTILE, "sweep": swept}
        written(tmp_path, findings=[finding], patience=[2, 3], **names)
        page = (tmp_path / "report.html").read_text("utf-8")
        tags, heard, text = opened(page, tmp_path)
        assert heard == []
        assert sum(tag == "svg" and "main-svg" in a.get("class", "") for tag, a in tags) >= 3
        assert {tag for tag, _ in tags} & {"img", "a", "iframe", "form", "object", "embed"} == set()
        assert [a for _, a in tags if any(name.startswith("on") for name in a)] == []
        assert sum(tag == "script" for tag, _ in tags) == page.count("<script") + 1
        assert "\u202e" not in text
        assert 'data-title="Share' not in text

    def test_the_listener_hears_a_page_that_asks_and_runs(tmp_path):
        bad = "<title></title><script>alert(1); nothing()</script><img src='http://localhost:9/x'>"
        _, heard, _ = opened(bad, tmp_path)
        assert heard[0] == "alert"
        assert "nothing is not defined" in heard[1]
        assert "http://localhost:9/x" in heard


def test_the_bare_metric_of_a_long_history_has_no_marks():
    for epochs, mode in ((200, "lines+markers"), (3_000, "lines")):
        (drawn,) = replay_figure(torch.rand(epochs), None, ["run"]).data
        assert drawn.mode == mode
