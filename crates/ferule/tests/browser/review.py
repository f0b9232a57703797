"""The review page in a browser: cases are judged by keyboard alone, and hostile answers stay text.

usage: review.py FERULE [SCREENSHOTS]

FERULE is the binary. Where a folder SCREENSHOTS is named, pictures in light and dark are kept there for a person to look at.
Needs the packages playwright and axe-playwright-python, and Chromium on the PATH or in the variable CHROMIUM. Everything goes through the binary: an
upstream that this script plays gives the answers, `ferule serve --upstream … --collect` keeps them, and the page shows them.
"""

import contextlib
import http.client
import http.server
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

import axe_playwright_python
from playwright.sync_api import sync_playwright

MARKUP = '<img src=x onerror="window.broken=1"><script>window.broken=1</script><b>bold</b> & &lt;i&gt;'
DIRECTION = "pay \u202e000,1\u202c yuan\u2066 to\u200b day \U000e0041"
EMOJI = "fine \u2764\ufe0f \U0001f469\u200d\U0001f4bb"
LONG = "\n".join(f"{line}. A line of an answer that is longer than the window." for line in range(60))
HOSTILE = {"markup": MARKUP, "direction": DIRECTION, "emoji": EMOJI, "long": LONG}
CASES = 20
QUESTIONS = [*HOSTILE, "<script>window.broken=1</script>"] + [f"case {number}: how long?" for number in range(CASES - len(HOSTILE) - 1)]
LATER = [f"later {number}: how long?" for number in range(8)]
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)


class Upstream(http.server.BaseHTTPRequestHandler):
    """A model that answers as the test wants."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        question = asked["messages"][-1]["content"]
        message = {"role": "assistant", "content": HOSTILE.get(question, f"answer to {question}")}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        body = json.dumps({"id": "x", "object": "chat.completion", "model": "secret-model", "choices": [choice]}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def upstream():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


class Ferule:
    """The binary on a data folder."""

    def __init__(self, binary, folder):
        self.binary, self.folder = binary, folder
        self.token = self.run("person", "add", "an").strip()

    def run(self, *arguments):
        command = [self.binary, *arguments, "--data", str(self.folder / "data")]
        environment = {**os.environ, "FERULE_TOKEN": getattr(self, "token", "")}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=self.folder)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout

    def signed(self):
        """The verdicts that count, by question."""
        table = self.folder / "signed.jsonl"
        table.unlink(missing_ok=True)
        self.run("review", "export", str(table), "--signed")
        rows = [json.loads(line) for line in table.read_text().splitlines()]
        return {row["question"]: row for row in rows}

    @contextlib.contextmanager
    def serve(self, url):
        command = [self.binary, "serve", "--upstream", url, "--allow-egress", "127.0.0.1", "--collect", "--port", "0"]
        command += ["--data", str(self.folder / "data")]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=self.folder)
        try:
            self.address = server.stdout.readline().strip()
            yield
        finally:
            server.terminate()
            assert server.wait(30) == 0

    def send(self, method, path, body=None, **headers):
        """A request from a program; its status, its headers and its body."""
        connection = http.client.HTTPConnection(self.address.split("//")[1])
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read().decode()

    def ask(self, questions):
        for question in questions:
            before = [{"role": "system", "content": "Be brief."}] if question == "long" else []
            asked = {"model": "secret-model", "messages": [*before, {"role": "user", "content": question}]}
            status, _, body = self.send("POST", "/v1/chat/completions", asked)
            assert status == 200, body
            if question == "markup":
                said = {"id": json.loads(body)["id"], "thumb": "down", "correction": "<u>x</u>", "reason": "wrong\u202e"}
                assert self.send("POST", "/v1/feedback", said)[0] == 200


class Page:
    """The review page, used by keyboard alone."""

    def __init__(self, browser, ferule, scheme, locale, screenshots):
        self.ferule, self.name, self.screenshots = ferule, f"{scheme}-{locale}", screenshots
        context = browser.new_context(color_scheme=scheme, locale=locale, viewport={"width": 1100, "height": 820})
        self.page = context.new_page()
        self.context = context
        self.faults = []
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("console", self.hear)
        self.page.on("request", self.watch)
        self.page.goto(ferule.address + "/review")
        self.page.wait_for_selector("#login:not([hidden])")

    def hear(self, message):
        # The browser reports answers such as 403 by itself.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.faults.append(f"console: {message.text}")

    def watch(self, request):
        if not request.url.startswith((self.ferule.address + "/review", "data:")):
            self.faults.append(f"a request to {request.url}")

    def press(self, key):
        self.page.keyboard.press(key)

    def sign_in(self, token):
        assert self.page.evaluate("document.activeElement.id") == "token", "the token's field has the focus"
        self.page.keyboard.type(token)
        self.press("Enter")

    def question(self):
        """The last message of what was asked."""
        return self.page.evaluate("[...document.querySelectorAll('#asked .text')].pop()?.textContent ?? ''")

    def wait(self, what, until):
        """Waits for something. The page's policy forbids Playwright's own way, which evaluates text inside the page."""
        for _ in range(200):
            if until():
                return
            self.page.wait_for_timeout(25)
        raise AssertionError(f"{self.name}: {what} did not happen; the page says {self.page.text_content('#problem')!r}")

    def decide(self, *keys):
        """Judges the item that is shown, as a person who has looked at it; returns its question."""
        question = self.question()
        self.page.wait_for_timeout(300)
        for key in keys:
            self.press(key)
        self.wait("the next item", lambda: self.question() != question or self.page.is_hidden("#item"))
        return question

    def check(self, what, whole=True):
        """Axe finds nothing serious, and a picture is kept."""
        source = pathlib.Path(axe_playwright_python.__file__).parent.joinpath("axe.min.js").read_text()
        self.page.evaluate(source + "\n;undefined")
        found = self.page.evaluate("axe.run()")
        serious = [fault for fault in found["violations"] if fault["impact"] in ("serious", "critical")]
        told = [(fault["id"], fault["help"], [node["html"] for node in fault["nodes"]]) for fault in serious]
        assert not serious, f"{self.name} {what}: {told}"
        assert found["passes"], "axe looked at the page"
        if self.screenshots:
            self.page.screenshot(path=str(self.screenshots / f"{what}-{self.name}.png"), full_page=whole)

    def end(self):
        assert not self.faults, self.faults
        assert self.page.evaluate("window.broken") is None, "an answer was run"
        self.context.close()


def headers_are_strict(ferule):
    for path in ["/review", "/review/page.js", "/review/page.css", "/review/next"]:
        _, headers, _ = ferule.send("GET", path)
        assert headers["content-security-policy"] == POLICY, path
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer", path
        assert headers["cache-control"] == "no-store" and headers["access-control-allow-origin"] is None, path
    html = ferule.send("GET", "/review")[2]
    assert "<script src=\"/review/page.js\"" in html and " style=" not in html and "onclick" not in html


def foreign_requests_are_refused(ferule, item):
    """With a session's cookie alone nothing can be changed, and pages elsewhere can do nothing."""
    token = {"token": ferule.token}
    assert ferule.send("POST", "/review/login", token, Sec_Fetch_Site="cross-site")[0] == 403
    assert ferule.send("POST", "/review/login", token, Origin="http://evil.example")[0] == 403
    assert ferule.send("POST", "/review/login", {"token": "ferule_no"})[0] == 403
    status, headers, body = ferule.send("POST", "/review/login", token, Sec_Fetch_Site="same-origin")
    assert status == 200, body
    cookie = headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie and "Path=/review" in cookie
    cookie, csrf = cookie.split(";")[0], json.loads(body)["csrf"]
    verdict = {"item": item, "decision": "accept", "seconds": 1}
    assert ferule.send("POST", "/review/verdict", verdict)[0] == 403
    for wrong in ["", "0" * 64, cookie.split("=")[1]]:
        for path, sent in [("verdict", verdict), ("revoke", {"verdict": 1}), ("logout", {})]:
            status, _, body = ferule.send("POST", f"/review/{path}", sent, Cookie=cookie, X_Ferule_Csrf=wrong)
            assert status == 403, (path, wrong, body)
    assert ferule.send("GET", "/review/next")[0] == 403
    status, _, body = ferule.send("GET", "/review/next", Cookie=cookie)
    assert status == 200 and "secret-model" not in body and "confidence" not in body, body
    assert ferule.send("POST", "/review/logout", {}, Cookie=cookie, X_Ferule_Csrf=csrf)[0] == 200
    assert ferule.send("GET", "/review/next", Cookie=cookie)[0] == 403


def a_token_that_is_taken_away_ends_its_session(ferule):
    token = ferule.run("person", "add", "bo").strip()
    cookie = ferule.send("POST", "/review/login", {"token": token})[1]["set-cookie"].split(";")[0]
    assert ferule.send("GET", "/review/next", Cookie=cookie)[0] == 200
    ferule.run("person", "remove", "bo")
    assert ferule.send("GET", "/review/next", Cookie=cookie)[0] == 403


def is_text(page):
    """What the page shows of the hostile item that it holds."""
    shown = page.page.evaluate("document.getElementById('answered').innerText")
    tags = page.page.evaluate("[...document.querySelectorAll('#answered *, #asked *')].map(e => e.localName + '.' + e.className)")
    assert set(tags) <= {"bdi.text", "span.mark", "p.role"}, tags
    question = page.question()
    if question == "markup":
        assert shown == MARKUP, shown
    if question == "direction":
        for mark in ["U+202E", "U+202C", "U+2066", "U+200B", "U+E0041"]:
            assert mark in shown, shown
        assert not any(character in shown for character in "\u202e\u202c\u2066\u200b\U000e0041")
    if question == "emoji":
        assert shown == EMOJI, shown
    if question == "long":
        assert shown == LONG, shown
        inside = "(() => { const r = document.querySelector('.verdicts').getBoundingClientRect(); return r.bottom <= innerHeight; })()"
        assert page.page.evaluate(inside), "the verdicts can be seen below a long answer"
    return question in HOSTILE or question.startswith("<script>")


def review_by_keyboard(page):
    """Judges twenty cases, and returns what was decided of each question."""
    page.check("1-login")
    page.sign_in("ferule_wrong")
    page.wait("a word on the wrong token", lambda: page.page.text_content("#problem"))
    page.check("2-wrong-token")
    # The wrong token is selected, so that typing replaces it.
    page.sign_in(page.ferule.token)
    page.page.wait_for_selector("#item:not([hidden])")
    page.press("?")
    page.page.wait_for_selector("#help[open]")
    page.check("3-help")
    page.press("a")
    page.press("Escape")
    assert not page.page.is_visible("#help")
    decided, hostile = {}, 0
    for case in range(CASES):
        hostile += is_text(page)
        if page.question() in HOSTILE:
            page.check(f"4-{page.question()}", whole=False)
        if case % 5 == 1:
            question = page.question()
            page.press("c")
            assert page.page.evaluate("document.activeElement.id") == "correction"
            value = page.page.input_value("#correction")
            assert not any(character in value for character in "\u202e\u202c\u2066\u200b\U000e0041"), value
            page.check("5-editor")
            page.press("Escape")
            assert not page.page.is_visible("#editor"), "Escape leaves"
            page.press("c")
            page.press("Control+a")
            page.page.keyboard.type("a r s: 36 months")
            decided[page.decide("Control+Enter")] = ("correct", "a r s: 36 months")
            assert page.page.evaluate("document.activeElement.id") == "item"
        else:
            decision = ["accept", None, "reject", "skip", "accept"][case % 5]
            decided[page.decide(decision[0])] = (decision, None)
        if case == 2:
            # What was hidden until now, and then the verdict is taken back and given anew.
            assert "#secret-model" in page.page.text_content("#behind")
            undone = list(decided)[-1]
            page.press("u")
            page.wait("the item that was taken back", lambda: page.question() == undone)
            assert page.page.is_hidden("#last")
            decided[page.decide("a")] = ("accept", None)
    assert hostile == len(HOSTILE) + 1, f"{hostile} hostile items were seen"
    page.check("6-after")
    return decided


def keys_are_not_taken_too_fast(page):
    """Neither a key that is held nor one pressed twice judges an item that nobody saw."""
    waiting = page.page.text_content("#progress")
    page.page.keyboard.down("s")
    page.page.keyboard.down("s")
    page.page.keyboard.up("s")
    page.page.wait_for_timeout(500)
    after = page.page.text_content("#progress")
    assert int(waiting.split()[0]) - int(after.split()[0]) <= 1, (waiting, after)


def hidden_time_is_not_counted(page, ferule):
    hide = """hidden => {
        Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });
        document.dispatchEvent(new Event('visibilitychange'));
    }"""
    page.page.wait_for_timeout(400)
    page.page.evaluate(hide, True)
    page.page.wait_for_timeout(2500)
    page.page.evaluate(hide, False)
    question = page.decide("r")
    seconds = ferule.signed()[question]["seconds"]
    assert 0.4 < seconds < 2.4, seconds


def the_next_item_is_there_at_once(page):
    """Also where the server is slow with the one after it."""
    question = page.question()
    page.page.wait_for_timeout(300)
    held = []
    page.page.route("**/review/next*", lambda route: held.append(route))
    page.press("a")
    page.wait("the next item", lambda: page.question() != question)
    assert page.page.is_visible("#item")
    page.wait("the question for the one after it", lambda: held)
    held[0].continue_()
    page.page.unroute("**/review/next*")


def main(binary, screenshots):
    if screenshots:
        screenshots.mkdir(parents=True, exist_ok=True)
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as folder, upstream() as url, sync_playwright() as playwright:
        ferule = Ferule(str(pathlib.Path(binary).resolve()), pathlib.Path(folder))
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        with ferule.serve(url):
            ferule.ask(QUESTIONS)
            headers_are_strict(ferule)
            item = json.loads(ferule.run("review", "queue", "--json").splitlines()[0])["item"]
            foreign_requests_are_refused(ferule, item)
            a_token_that_is_taken_away_ends_its_session(ferule)
            assert not ferule.signed()

            page = Page(browser, ferule, "light", "en-GB", screenshots)
            decided = review_by_keyboard(page)
            assert len(decided) == CASES
            found = {question: (row["decision"], row["correction"]) for question, row in ferule.signed().items()}
            expected = {question: verdict for question, verdict in decided.items() if verdict[0] != "skip"}
            assert found == expected, (found, expected)
            assert all(row["reviewer"] == "an" and 0.25 <= row["seconds"] < 60 for row in ferule.signed().values())

            # A page that is loaded again is still signed in.
            ferule.ask(LATER)
            page.page.reload()
            page.page.wait_for_selector("#item:not([hidden])")
            keys_are_not_taken_too_fast(page)
            hidden_time_is_not_counted(page, ferule)
            the_next_item_is_there_at_once(page)
            page.end()

            page = Page(browser, ferule, "dark", "zh-CN", screenshots)
            page.check("1-login")
            page.sign_in(ferule.token)
            page.page.wait_for_selector("#item:not([hidden])")
            assert "复核" in page.page.title() and page.page.get_attribute("html", "lang") == "zh-CN"
            page.check("4-item")
            page.press("c")
            page.check("5-editor")
            page.press("Escape")
            page.decide("r")
            page.check("6-after")
            page.press("?")
            page.check("3-help")
            page.press("Escape")
            while page.page.is_visible("#item"):
                page.page.wait_for_timeout(300)
                page.press("s")
                page.page.wait_for_timeout(100)
            page.check("7-nothing-waits")
            page.end()
        browser.close()
        assert json.loads(ferule.run("audit", "verify", "--json"))["whole"]
    print(f"{CASES} cases were judged by keyboard")


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else None)
