"""A person at the hub with a real browser: Debian's chromium, driven as hands and eyes would.

Waits are for what a person would see; each has a limit far beyond what anything takes.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

from selenium import webdriver
from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select

from support.demo import Demo

LIMIT_S = 60.0
_STEP_S = 0.05

DESK = (1280, 900)
PHONE = (360, 800)


@contextmanager
def chromium(size: tuple[int, int] = DESK, scale: float = 1) -> Iterator[webdriver.Chrome]:
    """Debian's own browser and driver, with a fresh profile: nothing is downloaded, nothing is kept."""
    with tempfile.TemporaryDirectory(prefix="hpchub-browser-", ignore_cleanup_errors=True) as folder:
        options = webdriver.ChromeOptions()
        options.binary_location = "/usr/bin/chromium"
        for argument in (
            "--headless=new",
            "--no-proxy-server",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--force-prefers-reduced-motion",  # no picture of a colour half way to another
            f"--force-device-scale-factor={scale}",
            f"--user-data-dir={folder}/profile",
        ):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # root has no user namespace to build one in
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService("/usr/bin/chromedriver", env={**os.environ, "TMPDIR": folder})
        driver = webdriver.Chrome(options, service)
        try:
            _resize(driver, size)
            yield driver
        finally:
            driver.quit()


def _resize(driver: webdriver.Chrome, size: tuple[int, int]) -> None:
    # The window's own size includes a title bar, and has a least width that is wider than a phone.
    metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 0, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@dataclass(slots=True)
class Person:
    """One person of the demo, `user`, at one browser. Screenshots go to `pictures`, numbered by step."""

    demo: Demo
    driver: webdriver.Chrome
    user: str
    pictures: Path
    steps: int = 0

    # Seeing

    def wait(self, what: str, seen: Callable[[], Any], limit_s: float = LIMIT_S) -> Any:
        """What `seen` answers once that is something.

        Raises:
            AssertionError: It stays nothing for `limit_s` seconds; the message has what is on the page.
        """
        deadline = time.monotonic() + limit_s
        while time.monotonic() < deadline:
            try:
                if found := seen():
                    return found
            except WebDriverException:
                pass  # the page is being replaced: look again
            time.sleep(_STEP_S)
        self.picture("waited in vain")
        raise AssertionError(f"not seen within {limit_s:.0f} s: {what}\n{self.url}\n{self.text()}")

    def find(self, css: str) -> WebElement:
        """The first element that fits and is shown, waited for."""

        def shown() -> WebElement | None:
            return next(
                (e for e in self.driver.find_elements(By.CSS_SELECTOR, css) if e.is_displayed()), None
            )

        element: WebElement = self.wait(css, shown)
        return element

    def all(self, css: str) -> list[WebElement]:
        """Every element that fits now."""
        return list(self.driver.find_elements(By.CSS_SELECTOR, css))

    def text(self, css: str = "body") -> str:
        """The text of the first element that fits; empty where there is none."""
        return next((element.text for element in self.all(css)), "")

    @property
    def url(self) -> str:
        """The address of the page."""
        return str(self.driver.current_url)

    @property
    def path(self) -> str:
        """The address's path."""
        return urlsplit(self.url).path

    @property
    def focused(self) -> WebElement:
        """What the keyboard speaks to."""
        return self.driver.switch_to.active_element

    def console(self) -> list[str]:
        """What the browser's console complained of since the last call."""
        return [str(line["message"]) for line in self.driver.get_log("browser") if line["level"] == "SEVERE"]

    def picture(self, name: str) -> Path:
        """Keep what the window shows."""
        self.steps += 1
        self.pictures.mkdir(parents=True, exist_ok=True)
        path = self.pictures / f"{self.steps:02d}-{name.replace(' ', '-')}.png"
        self.driver.save_screenshot(str(path))
        return path

    # Doing

    def resize(self, size: tuple[int, int]) -> None:
        """Another window size, in CSS pixels."""
        _resize(self.driver, size)

    def theme(self, name: str) -> None:
        """`light` or `dark`, by JupyterHub's own button."""
        if self.driver.execute_script("return document.documentElement.dataset.bsTheme || 'light'") != name:
            # On a phone the button is behind the menu's; its handler is what counts.
            self.driver.execute_script("document.getElementById('dark-theme-toggle').click()")
        self.wait(name, lambda: self.all(f"html[data-bs-theme={name}]"))

    def fits(self, name: str) -> None:
        """Nothing sticks out of the window, on a desk or a phone, in the light or in the dark.

        Raises:
            AssertionError: The page is wider than the window.
        """
        for theme in ("light", "dark"):
            self.theme(theme)
            for size in (DESK, PHONE):
                self.resize(size)
                width = self.driver.execute_script("return document.documentElement.scrollWidth")
                self.picture(f"{name} {theme} {size[0]}")
                assert width <= size[0], f"{name} is {width} wide in a window of {size[0]}"
        self.theme("light")
        self.resize(DESK)

    def open(self, path: str) -> None:
        """Open a page of the hub."""
        self.driver.get(urljoin(self.demo.url, path))

    def login(self, password: str | None = None, to: str = "hub/home") -> None:
        """Open a page, and log in by the form that comes first."""
        self.open(to)
        self.find("#username_input").send_keys(self.user)
        self.find("#password_input").send_keys(self.demo.users[self.user] if password is None else password)
        self.find("#login_submit").click()

    def keys(self, *keys: str) -> None:
        """Press keys, wherever the focus is."""
        webdriver.ActionChains(self.driver).send_keys(*keys).perform()

    def chord(self, modifier: str, key: str) -> None:
        """Press one key while another is held."""
        webdriver.ActionChains(self.driver).key_down(modifier).send_keys(key).key_up(modifier).perform()

    def tab(self) -> WebElement:
        """Press Tab; what has the focus then."""
        self.keys(Keys.TAB)
        return self.focused

    # The form

    def label_of(self, element: WebElement) -> str:
        """The words of a field's label."""
        return self.text(f"label[for='{element.get_attribute('id')}']")

    def choose(self, label: str, value: str) -> None:
        """Choose in a list, or type into a field, that goes by a label."""
        for element in self.all("#hpchub-form select, #hpchub-form input"):
            if element.is_displayed() and self.label_of(element) == label:
                if element.tag_name == "select":
                    Select(element).select_by_visible_text(value)
                elif element.get_attribute("type") == "radio":
                    element.click()
                else:
                    element.clear()
                    element.send_keys(value)
                return
        raise AssertionError(f"no field is labelled {label!r}:\n{self.text()}")

    def values(self) -> dict[str, str]:
        """What the form would send now."""
        found: dict[str, str] = self.driver.execute_script(
            "return Object.fromEntries(new FormData(document.getElementById('spawn_form')))"
        )
        return {name: value for name, value in found.items() if name != "_xsrf"}

    def start(self) -> None:
        """Press the form's button."""
        self.find("#spawn_form button[type=submit]").click()

    # The start

    def watch(self, until: Sequence[str]) -> list[str]:
        """The progress page's lines, read until one of them holds one of `until`, or Jupyter shows."""
        lines: list[str] = []

        def done() -> bool:
            now = self.log_lines()
            lines[len(lines) :] = now[len(lines) :]
            return any(words in line for words in until for line in lines) or "/lab" in self.path

        self.wait(f"one of {list(until)} in the event log", done)
        return lines

    def log_lines(self) -> list[str]:
        """The event log's lines, folded or not."""
        lines: list[str] = self.driver.execute_script(
            "return Array.from(document.querySelectorAll('#progress-log > *'), (e) => e.textContent.trim())"
        )
        return lines

    # The home page

    def open_home(self) -> None:
        """Open the home page, and wait for its script: the buttons do nothing before it is there."""
        self.open("hub/home")
        self.wait("home.js", lambda: self.driver.execute_script("return require.defined('home')"))

    def stop_from_home(self) -> None:
        """Stop the server by the home page's button, and wait until the page offers to start again."""
        self.open_home()
        self.find("#stop").click()
        self.wait("the button to start again", lambda: "Start My Server" in self.text("#start"))

    # JupyterLab

    def open_notebook(self) -> None:
        """Open JupyterLab with nothing of last time's in it, and from its launcher an empty notebook."""
        self.open(f"user/{quote(self.user)}/lab?reset")
        self.find(".jp-LauncherCard[data-category=Notebook]").click()
        self.find(".jp-Notebook .cm-content")
        # The indicator on top says "idle" before there is a kernel; a cell that runs too soon is lost.
        self.wait("an idle kernel", lambda: "| Idle" in self.text("#jp-main-statusbar"))

    def menu(self, *labels: str) -> None:
        """Choose from JupyterLab's menus: `menu("Settings", "Theme", "JupyterLab Dark")`."""
        bar, *path, last = labels

        def entry(css: str, label: str) -> WebElement | None:
            return next((e for e in self.all(css) if e.is_displayed() and e.text.strip() == label), None)

        self.wait(bar, lambda: entry(".lm-MenuBar-itemLabel", bar)).click()
        for label in path:
            found = self.wait(label, lambda label=label: entry(".lm-Menu-itemLabel", label))
            webdriver.ActionChains(self.driver).move_to_element(found).perform()
        self.wait(last, lambda: entry(".lm-Menu-itemLabel", last)).click()

    def dark_jupyterlab(self) -> None:
        """Change to JupyterLab's own dark theme."""
        self.menu("Settings", "Theme", "JupyterLab Dark")
        self.wait("the dark theme", lambda: self.all("body[data-jp-theme-light=false]"))

    def run_cell(self, code: str) -> str:
        """Type into the notebook's last cell, run it, and read what it prints."""
        before = len(self.all(".jp-Notebook .jp-Cell"))
        editor = self.all(".jp-Notebook .jp-Cell .cm-content")[-1]
        editor.click()
        editor.send_keys(code)
        self.chord(Keys.SHIFT, Keys.ENTER)
        # Running the last cell adds another one below it.
        self.wait("a new cell", lambda: len(self.all(".jp-Notebook .jp-Cell")) > before)
        cell = self.all(".jp-Notebook .jp-Cell")[before - 1]
        self.wait(
            "the cell's number",
            lambda: cell.find_element(By.CSS_SELECTOR, ".jp-InputPrompt").text.strip("[]: ").isdigit(),
        )
        return "\n".join(e.text for e in cell.find_elements(By.CSS_SELECTOR, ".jp-OutputArea-output"))
