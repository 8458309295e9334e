"""The gallery in a real Chromium: a newcomer's ways by mouse, by touch and by keyboard alone, and what axe says."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from gallery_world import EVIL, Gallery, chromium, gallery, serving
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from efuda.server.access import new_password, read_secret
from efuda.server.settings import Settings

STATIC = Path(__file__).parent.parent / "src" / "efuda" / "server" / "static"
WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
WIDE, PHONE = 1440, 360
Opener = Callable[..., Page]

expect.set_options(timeout=10_000)


@pytest.fixture(scope="module")
def art(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gallery]:
    with gallery(tmp_path_factory.mktemp("gallery")) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as running:
        yield running


@pytest.fixture
def visit(browser: Browser, art: Gallery) -> Iterator[Opener]:
    """Opens a page in a browser nobody has used; the test fails if a script of the page did."""
    contexts, faults = [], []

    def opened(path: str = "/", width: int = WIDE, url: str = art.url, ready: str = ".cell img.here") -> Page:
        phone = width < 600
        context = browser.new_context(
            viewport={"width": width, "height": 740 if phone else 900},
            is_mobile=phone,
            has_touch=phone,
            reduced_motion="reduce",
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: "Content Security" in message.text and faults.append(message.text))
        page.goto(url + path)
        page.wait_for_selector(ready)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert faults == []


def count(page: Page) -> Any:
    return expect(page.locator("#count"))


def search(page: Page, text: str) -> None:
    page.fill("#query", text)
    page.press("#query", "Enter")


def focus_is_on(page: Page, start: str) -> None:
    """What a screen reader would call the focused element begins so, at once or when its picture has come."""
    told = ""
    for _ in range(100):
        told = page.evaluate("document.activeElement.getAttribute('aria-label') ?? document.activeElement.innerText")
        if told.startswith(start):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"the focus is on {told!r}, not on {start!r}")


def picture_of(art: Gallery, name: str) -> int:
    """The id of a file."""
    return next(one.id for one in art.collection.search("", limit=300).pictures if one.path.name == name)


# A newcomer ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_by_mouse_one_searches_looks_and_edits_and_takes_it_back(visit: Opener) -> None:
    page = visit()
    count(page).to_have_text("192 pictures")  # four fifths of 240: the dark ones are explicit
    expect(page.locator("#hidden")).to_have_text("48 hidden by rating")

    page.click("#query")
    page.keyboard.type("gre")
    option = page.get_by_role("option", name="green")
    expect(option.locator(".count")).to_have_text("48")
    option.click()
    page.keyboard.press("Enter")
    count(page).to_have_text("48 pictures")
    page.click(".used .chip")
    count(page).to_have_text("192 pictures")

    page.click("#side >> text=ruby")
    count(page).to_have_text("48 pictures")
    page.hover("#side li:has-text('red')")
    page.click("[aria-label='Leave out red']")
    count(page).to_have_text("0 pictures")
    expect(page.locator("#nothing")).to_contain_text("Nothing is found")
    page.click("#nothing >> text=-red")
    count(page).to_have_text("48 pictures")

    page.click(".cell >> nth=1")
    expect(page.locator(".viewbar .count")).to_have_text("2 of 48")
    page.fill("#addtag", "lucky find")
    page.press("#addtag", "Enter")
    expect(page.locator(".toast")).to_contain_text("Added lucky, find")
    expect(page.locator(".taglist [data-tag=lucky][data-by=person]")).to_be_visible()
    page.click(".toast >> text=Undo")
    expect(page.locator(".taglist [data-tag=lucky]")).to_have_count(0)
    page.click("[aria-label='Next picture']")
    expect(page.locator(".viewbar .count")).to_have_text("3 of 48")
    page.click("[aria-label='Back to the pictures']")
    expect(page.locator("#view")).to_be_hidden()
    focus_is_on(page, "Picture 3 of 48")


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_by_keyboard_alone_one_does_the_same(visit: Opener, width: int) -> None:
    page = visit(width=width)
    press = page.keyboard.press
    press("Tab")
    focus_is_on(page, "Skip to the pictures")
    press("Enter")
    focus_is_on(page, "Picture 1 of 192")
    press("ArrowRight")
    press("ArrowDown")
    columns = int(page.get_attribute("#grid", "aria-colcount") or 0)
    focus_is_on(page, f"Picture {columns + 2} of 192")
    press("Control+End")
    focus_is_on(page, "Picture 192 of 192")

    press("/")
    page.keyboard.type("blu")
    expect(page.locator("#suggestions .option").first).to_contain_text("blue")
    press("ArrowDown")
    press("Enter")
    press("Enter")
    count(page).to_have_text("48 pictures")
    press("Escape")
    focus_is_on(page, "Picture 1 of 48")

    press("Enter")
    expect(page.locator(".taglist [data-tag=blue]")).to_be_visible()
    press("a")
    page.keyboard.type("sea")
    press("Enter")
    expect(page.locator(".taglist [data-tag=sea][data-by=person]")).to_be_visible()
    press("Escape")
    press("u")
    expect(page.locator(".taglist [data-tag=sea]")).to_have_count(0)
    press("ArrowRight")
    expect(page.locator(".viewbar .count")).to_have_text("2 of 48")
    press("Escape")
    focus_is_on(page, "Picture 2 of 48")

    press("Space")
    press("Shift+ArrowRight")
    expect(page.locator("#selected")).to_have_text("2 selected")
    press("e")
    page.keyboard.type("wave")
    press("Enter")
    expect(page.locator(".toast").last).to_contain_text("Added wave: 2 pictures")
    press("Escape")
    press("Escape")
    expect(page.locator("#editbar")).to_be_hidden()
    press("Control+z")
    expect(page.locator(".toast").last).to_contain_text("Undone")

    press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_contain_text("select everything found")
    press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    press("h")
    expect(page.get_by_role("dialog", name="History")).to_contain_text("added wave")
    press("Escape")
    press("v")
    press("Tab")
    press("Tab")
    press("Tab")
    press("Tab")
    press("Tab")
    press("Space")
    press("Escape")
    expect(page.locator("#ratingsbutton")).to_have_attribute("aria-label", re.compile("2 ratings"))


def test_on_a_phone_one_taps_presses_long_and_swipes(visit: Opener) -> None:
    page = visit(width=PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE  # nothing to scroll sideways
    page.tap("#tagsbutton")
    page.tap("#side >> text=red >> nth=0")
    count(page).to_have_text("48 pictures")
    expect(page.locator("#side")).to_be_hidden()
    page.tap(".cell >> nth=0")
    expect(page.locator(".viewbar .count")).to_have_text("1 of 48")
    page.evaluate(
        """() => { const stage = document.querySelector(".stage"), at = (x) => [new Touch({identifier: 1, target: stage,
           clientX: x, clientY: 300})];
           const send = (name, x) => stage.dispatchEvent(
             new TouchEvent(name, {bubbles: true, touches: name === "touchend" ? [] : at(x), changedTouches: at(x)}));
           send("touchstart", 300);
           send("touchend", 80); }"""
    )
    expect(page.locator(".viewbar .count")).to_have_text("2 of 48")
    page.go_back()
    cell = page.locator(".cell >> nth=3")
    cell.evaluate(
        """async (cell) => { const at = [new Touch({identifier: 1, target: cell, clientX: 9, clientY: 9})];
           cell.dispatchEvent(new TouchEvent("touchstart", {bubbles: true, touches: at, changedTouches: at}));
           await new Promise((done) => setTimeout(done, 600));
           cell.dispatchEvent(new TouchEvent("touchend", {bubbles: true, touches: [], changedTouches: at})); }"""
    )
    expect(page.locator("#selected")).to_have_text("1 selected")
    page.tap(".cell >> nth=4")
    expect(page.locator("#selected")).to_have_text("2 selected")


# Everybody can use it ───────────────────────────────────────────────────────────────────────────────────────────────


def views(page: Page, width: int) -> Iterator[str]:
    """Every view in turn, each named."""
    yield "pictures"
    page.fill("#query", "re")
    page.wait_for_selector(".option")
    page.keyboard.press("ArrowDown")
    yield "suggestions"
    search(page, "red gren")
    page.wait_for_selector(".mistake")
    yield "mistake"
    search(page, "red blue")
    page.wait_for_selector("#nothing h2")
    yield "nothing"
    search(page, "red")
    page.wait_for_selector(".cell img.here")
    page.locator(".cell a").first.focus()
    page.keyboard.press("Space")
    yield "selected"
    page.keyboard.press("Escape")
    if width < 600:
        page.click("#tagsbutton")
        page.wait_for_selector("#side .facet")
        yield "tags"
        page.keyboard.press("Escape")
    panels = {"keys": "?", "settings": ",", "history": "h", "jobs": "j", "ratings": "v"}
    for name, key in panels.items():
        page.keyboard.press(key)
        page.wait_for_selector("dialog .body > *")
        yield name
        page.keyboard.press("Escape")
    if width < 600:
        page.click("[aria-label=Menu]")
        yield "menu"
        page.keyboard.press("Escape")
    page.click(".cell >> nth=0")
    page.click(".why >> nth=0")
    page.wait_for_selector(".heat.here")
    page.wait_for_selector(".alike h2")
    yield "picture"
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    page.wait_for_selector(".group")
    yield "duplicates"


def violations(page: Page, script: str, rules: list[str]) -> list[tuple[str, str]]:
    """Which rules of axe are broken, and by what."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(script)
    kind = "tag" if rules is WCAG else "rule"
    report = page.evaluate(
        "(only) => axe.run({ runOnly: only, resultTypes: ['violations'] })", {"type": kind, "values": rules}
    )
    return [(one["id"], one["nodes"][0]["html"]) for one in report["violations"]]


@pytest.mark.parametrize("width", [WIDE, PHONE])
def test_axe_finds_nothing_on_any_view_in_either_theme(visit: Opener, width: int) -> None:
    page, script, found = visit(width=width), Axe().axe_script, {}
    assert "wcag22aa" in script  # the size of targets is among its rules
    for view in views(page, width):
        found[view] = violations(page, script, WCAG)
        page.emulate_media(color_scheme="dark")  # nothing but the colours changes
        found[f"{view}, dark"] = violations(page, script, ["color-contrast"])
        page.emulate_media(color_scheme="light")
    assert {view: some for view, some in found.items() if some} == {}
    assert len(found) >= 24


def test_the_theme_and_single_keys_are_a_choice_that_stays(visit: Opener) -> None:
    page = visit("/?panel=settings")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.check("input[name=theme][value=dark]")
    assert page.evaluate(ground) != light
    page.uncheck("text=Single keys do things")
    page.reload()
    page.wait_for_selector("dialog")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Control+k")
    focus_is_on(page, "Search by tags")


def test_messages_are_said_to_screen_readers(visit: Opener) -> None:
    page = visit()
    status = page.locator("#polite")
    search(page, "green")
    expect(status).to_have_text("48 pictures")
    search(page, "gren")
    expect(status).to_contain_text("gren")
    expect(page.locator("#query")).to_have_attribute("aria-invalid", "true")
    page.fill("#query", "re")
    expect(status).to_contain_text("suggestion")
    expect(page.locator("#query")).to_have_attribute("aria-expanded", "true")
    page.keyboard.press("ArrowDown")
    active = page.get_attribute("#query", "aria-activedescendant")
    expect(page.locator(f"#{active}")).to_have_attribute("aria-selected", "true")


# The address ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_address_holds_the_state_and_back_goes_back(visit: Opener, art: Gallery) -> None:
    page = visit("/?q=red")
    count(page).to_have_text("48 pictures")
    expect(page.locator("#query")).to_have_value("red")
    search(page, "red order:id")
    expect(page).to_have_url(re.compile(r"\?q=red\+order%3Aid$"))
    expect(page.locator("#order")).to_have_value("id")
    page.click(".cell >> nth=2")
    expect(page).to_have_url(re.compile(r"id=\d+"))
    opened = page.url
    page.click("[aria-label='Next picture']")
    page.go_back()  # of steps between pictures none is kept
    expect(page).to_have_url(re.compile(r"\?q=red\+order%3Aid$"))
    expect(page.locator("#view")).to_be_hidden()
    page.go_back()
    expect(page).to_have_url(f"{art.url}/?q=red")
    expect(page.locator("#query")).to_have_value("red")
    page.go_forward()
    expect(page.locator("#query")).to_have_value("red order:id")
    page.goto(opened)
    expect(page.locator(".viewbar .count")).to_have_text("3 of 48")
    page.goto(f"{art.url}/?q=red&panel=history")
    expect(page.get_by_role("dialog", name="History")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page).to_have_url(f"{art.url}/?q=red")


def test_how_far_one_scrolled_is_in_the_address(visit: Opener) -> None:
    page = visit(width=PHONE)
    page.evaluate("document.getElementById('port').scrollTop = 3000")
    expect(page).to_have_url(re.compile(r"at=\d+"))
    page.reload()
    page.wait_for_selector(".cell img.here")
    assert page.evaluate("document.getElementById('port').scrollTop") > 2500


# Searching ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_mistake_is_marked_under_its_character_and_put_right_by_a_click(visit: Opener) -> None:
    page = visit()
    search(page, "ruby or gren")
    mark = page.locator(".marked mark")
    expect(mark).to_have_text("g")  # the first letter of what no tag is called, though the filter stands around it
    expect(page.locator(".marked")).to_have_text("ruby or gren")
    page.get_by_role("button", name="green", exact=True).click()
    count(page).to_have_text("96 pictures")
    expect(page.locator("#query")).to_have_value("ruby or green")
    search(page, "(red or blu)")
    page.get_by_role("button", name="blue", exact=True).click()
    expect(page.locator("#query")).to_have_value("(red or blue)")
    search(page, "widht:>70")
    page.get_by_role("button", name="width:", exact=True).click()
    expect(page.locator("#query")).to_have_value("width:>70")
    search(page, "(red")
    expect(page.locator(".mistake")).to_be_visible()
    search(page, "red")
    expect(page.locator(".mistake")).to_have_count(0)


def test_searches_are_put_together_as_the_language_reads_them(visit: Opener) -> None:
    page = visit()
    shown = page.evaluate(
        """async () => { const { shown, withTerm, written, without } = await import("/static/query.js");
           const g = ["general"];
           return [shown("", g), shown("a -b", g), shown("a or b", g), shown("a OR b order:id", g),
                   shown("(a or b) c", ["general", "none"]), shown("~a ~b", ["general", "sensitive"]),
                   shown("a", ["general", "sensitive", "questionable", "explicit", "none"]), shown("a) or (b", g)]
             .map(({ query, shift }) => [query, shift])
             .concat([withTerm("a or b", "c"), withTerm("-c a", "c"), withTerm("c a", "c", "-"), withTerm("a", "a"),
                      written("saber_(fate)"), written(":)"), written("or"), written('a"b'),
                      without("a b -a", "A")]); }"""
    )
    assert shown == [
        ["rating:general", 0],
        ["a -b rating:general", 0],
        ["(a or b) rating:general", 1],
        ["(a OR b) rating:general order:id", 1],
        ["((a or b) c) -rating:sensitive,questionable,explicit", 1],
        ["~a ~b rating:general,sensitive", 0],
        ["a", 0],
        ["a) or (b", 0],  # the server says what is wrong with it
        "(a or b) c",
        "a c",
        "a -c",
        "a",
        "saber_(fate)",
        'tag:":)"',
        'tag:"or"',
        'tag:"a\\"b"',
        "b -a",
    ]


def test_only_general_pictures_are_shown_until_one_chooses(visit: Opener, art: Gallery) -> None:
    page = visit("/?q=dark", ready="#nothing h2")
    expect(page.locator("#hidden")).to_have_text("48 hidden by rating")
    expect(page.locator("#nothing h2")).to_have_text("48 pictures of other ratings")
    dark = picture_of(art, "004.png")
    page.goto(f"{art.url}/?id={dark}")
    expect(page.locator(".veil")).to_contain_text("rated explicit")
    expect(page.locator(".full")).to_have_count(0)
    page.click("text=Show it this once")
    expect(page.locator(".full")).to_be_visible()

    page.goto(f"{art.url}/?q=dark&panel=ratings")
    page.get_by_label("Explicit").check()
    count(page).to_have_text("48 pictures")
    page.goto(f"{art.url}/?q=dark")
    count(page).to_have_text("48 pictures")  # remembered
    page.click(".cell >> nth=0")
    expect(page.locator(".full")).to_be_visible()


# Changing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_are_selected_and_edited_as_one(visit: Opener, art: Gallery) -> None:
    page = visit("/?q=red+or+green")
    page.hover(".cell >> nth=1")
    page.click(".cell >> nth=1 >> .pick")
    page.click(".cell >> nth=6", modifiers=["Shift"])
    expect(page.locator("#selected")).to_have_text("6 selected")
    expect(page.locator(".cell[aria-selected=true]")).to_have_count(6)
    page.click(".cell >> nth=3", modifiers=["Control"])
    expect(page.locator("#selected")).to_have_text("5 selected")
    page.fill("#edittags", "chosen -simple_background")
    page.click("#editbar >> text=Add")
    expect(page.locator(".toast").last).to_contain_text("5 pictures")
    assert art.collection.search("chosen -simple_background").total == 5

    page.click("text=Select all")
    expect(page.locator("#selected")).to_have_text("96 selected")
    page.click(".cell >> nth=0")  # all but this one
    expect(page.locator("#selected")).to_have_text("95 selected")
    page.fill("#edittags", "many")
    page.press("#edittags", "Enter")
    expect(page.locator(".toast").last).to_contain_text("95 pictures")
    assert art.collection.search("many (red or green)").total == art.collection.search("many").total == 95
    page.select_option("#editrating", "sensitive")
    expect(page.locator(".toast").last).to_contain_text("Rated sensitive")

    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    for left in ("many rating:s", "chosen"):
        page.keyboard.press("h")
        page.wait_for_selector("dialog .undoredo")
        while art.collection.search(left).total:
            page.locator("dialog .undoredo .button").first.click()
            page.wait_for_timeout(100)
        page.keyboard.press("Escape")
    assert art.collection.search("rating:s").total == 0


def test_a_tag_that_was_removed_is_listed_as_refused_and_can_come_back(visit: Opener, art: Gallery) -> None:
    page = visit("/?q=blue")
    page.click(".cell >> nth=5")
    row = page.locator(".taglist [data-tag=blue]")
    expect(row).to_have_attribute("data-by", "model")
    page.locator("a.tag", has_text="blue").focus()
    page.keyboard.press("Delete")
    expect(page.locator(".refused [data-tag=blue]")).to_be_visible()
    page.click("[aria-label='No longer refuse blue']")
    expect(page.locator(".refused")).to_have_count(0)
    expect(row).to_have_attribute("data-by", "model")
    page.click("[aria-label='Confirm blue']")
    expect(row).to_have_attribute("data-by", "person")
    page.keyboard.press("2")
    expect(page.locator("#rate-sensitive")).to_be_checked()
    for _ in range(4):
        page.keyboard.press("u")
        page.wait_for_timeout(150)
    expect(page.locator("#rate-general")).to_be_checked()


def test_why_a_tag_is_there_is_laid_over_the_picture(visit: Opener) -> None:
    page = visit("/?q=green")
    page.click(".cell >> nth=0")
    page.locator("a.tag", has_text="green").focus()
    page.keyboard.press("w")
    heat = page.locator(".heat.here")
    expect(heat).to_be_visible()
    assert heat.evaluate("(image) => image.naturalWidth") > 0
    expect(page.locator("figcaption")).to_contain_text("Why green")
    page.click("[aria-label='Hide the heat map']")
    expect(heat).to_have_count(0)


def test_similar_pictures_are_of_the_same_colour(visit: Opener, art: Gallery) -> None:
    page = visit("/?q=green")
    page.click(".cell >> nth=0")
    tiles = page.locator(".alike .tiles a")
    expect(tiles).to_have_count(12)
    page.keyboard.press("s")
    expect(page.locator("#query")).to_have_value(re.compile(r"like:\d+"))
    page.wait_for_selector(".cell img.here")
    first = int(page.get_attribute(".cell >> nth=1", "data-id") or 0)
    assert "green" in {tag.name for tag in art.collection.picture(first).tags}


def test_a_duplicate_is_merged_into_the_one_that_is_kept(visit: Opener, art: Gallery) -> None:
    page = visit("/?view=duplicates", ready=".group")
    expect(page.locator(".group")).to_have_count(1)
    kept = picture_of(art, "000.png")
    page.check(f"input[value='{kept}']")
    page.click("text=Keep the chosen one, merge the rest")
    expect(page.locator(".merged")).to_contain_text(f"Merged into picture {kept}")
    assert art.collection.search("red").total == 47
    page.click(".merged >> text=Undo")
    expect(page.locator(".group")).to_have_count(1)
    assert art.collection.search("red").total == 48


# Hostile names, the password ────────────────────────────────────────────────────────────────────────────────────────


def test_names_that_look_like_markup_are_text(visit: Opener, art: Gallery) -> None:
    evil = picture_of(art, EVIL)
    page = visit(f"/?id={evil}", ready=".facts dl")
    expect(page.locator("#view h1")).to_have_text(EVIL)
    page.fill("#addtag", "<script>window.hacked=1</script>")
    page.press("#addtag", "Enter")
    page.wait_for_selector(".toast")
    page.keyboard.press("Escape")
    page.keyboard.press("h")
    page.wait_for_selector("dialog .history")
    page.goto(f"{art.url}/?q=%3Cimg%20src%3Dx%20onerror%3D%22window.hacked%3D1%22%3E")
    page.wait_for_selector(".mistake")
    expect(page.locator(".marked")).to_contain_text("<img")
    assert page.evaluate("window.hacked") is None
    assert page.locator("#problem img, #view img[src=x], #side img").count() == 0
    page.keyboard.press("u")
    page.wait_for_selector(".toast")


def test_no_part_of_the_page_makes_markup_of_text_or_comes_from_elsewhere() -> None:
    for path in STATIC.iterdir():
        text = path.read_text("utf-8")
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert word not in text, f"{path.name} uses {word}"
        urls = set(re.findall(r"https?://[^\s\"'`)/]+", text)) - {"http://www.w3.org"}
        assert not urls, f"{path.name} names {urls}"
    page = (STATIC / "index.html").read_text("utf-8")
    assert not re.search(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", page)
    for name in re.findall(r'(?:href|src)="/static/([^"]+)"', page):
        assert (STATIC / name).is_file(), name


def test_a_server_with_a_password_asks_for_it(visit: Opener, art: Gallery, tmp_path: Path) -> None:
    new_password(tmp_path / "secret", "correct horse battery")
    with serving(art.collection, None, Settings(secret=read_secret(tmp_path / "secret"))) as url:
        page = visit("/?q=red", url=url, ready="#signin")
        assert page.evaluate("document.activeElement.id") == "password"
        assert violations(page, Axe().axe_script, WCAG) == []
        page.keyboard.type("wrong")
        page.keyboard.press("Enter")
        expect(page.locator("#wrong")).not_to_be_empty()
        page.fill("#password", "correct horse battery")
        page.keyboard.press("Enter")
        count(page).to_have_text("48 pictures")
        page.keyboard.press(",")
        page.click("text=Sign out")
        expect(page.locator("#signin")).to_be_visible()


# Size ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_few_cells_exist_and_every_picture_is_reached(visit: Opener) -> None:
    page = visit()
    page.check("input[name=size][value=small]", force=True)
    most = page.evaluate(
        """async () => { const port = document.getElementById("port"); let most = 0;
           for (let top = 0; top < port.scrollHeight; top += 300) { port.scrollTop = top;
             await new Promise(requestAnimationFrame); await new Promise(requestAnimationFrame);
             most = Math.max(most, document.querySelectorAll(".cell").length); }
           return most; }"""
    )
    assert most < 500
    expect(page.locator("[aria-label^='Picture 192 of 192']")).to_be_visible()


def test_a_million_pictures_are_within_reach_of_the_scroll_bar(visit: Opener) -> None:
    page = visit()
    told = page.evaluate(
        """async () => { const { Tall } = await import("/static/tall.js");
           const port = document.createElement("div"), spacer = document.createElement("div");
           port.style.cssText = "height:800px; overflow:auto; position:fixed; width:100px"; port.append(spacer);
           document.body.append(port);
           const tall = new Tall(port, spacer); tall.height = 40_000_000;
           const seen = [spacer.offsetHeight];
           for (const wanted of [0, 1_999_999, 2_000_000, 12_345_678, 38_000_001, 39_999_200]) {
             tall.top = wanted; seen.push(tall.top === wanted); }
           tall.top = 20_000_000; port.scrollTop += 100; tall.scrolled(); seen.push(tall.top);
           port.scrollTop = port.scrollHeight; tall.scrolled(); seen.push(tall.top);
           port.scrollTop = 0; tall.scrolled(); seen.push(tall.top);
           let exact = true;
           tall.top = 19_000_000;
           for (let i = 0; i < 2000; i += 1) { const before = tall.top; port.scrollTop -= 700; tall.scrolled();
             exact &&= tall.top === before - 700; }
           return [...seen, exact]; }"""
    )
    assert told[:7] == [8_000_000, True, True, True, True, True, True]
    assert told[7:] == [20_000_100, 39_999_200, 0, True]


# The last, as the collection is another one afterwards ─────────────────────────────────────────────────────────────


def test_a_folder_is_tagged_from_the_page_with_live_progress(visit: Opener, art: Gallery) -> None:
    Image.new("RGB", (70, 70), (200, 20, 30)).save(art.folder / "new.png")
    page, other = visit("/?panel=jobs", ready="#folder"), visit("/?q=red", width=PHONE)
    page.click("text=Tag this folder")
    job = page.locator(".job").first
    expect(job).to_have_attribute("data-state", "done", timeout=30_000)
    expect(job).to_contain_text("1 picture added")
    expect(page.locator(".toast")).to_contain_text("1 picture added")
    count(other).to_have_text("49 pictures")  # a page that is open learns of it
