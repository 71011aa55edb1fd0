"""Open a report in headless Chromium from disk, click through to a figure, and save a screenshot of it.

python tests/report_in_browser.py REPORT.html SCREENSHOT.png; needs chromium and chromedriver on the path.
"""

import shutil
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

CATEGORY, FIGURE = "3 Figures of the program", "Loss at the levels of the saddles"
OPTIONS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--window-size=1400,1000",
]


def look(report: Path, screenshot: Path) -> None:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for option in OPTIONS:
        options.add_argument(option)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(report.resolve().as_uri())
        wait = WebDriverWait(browser, 30)

        def click(text: str) -> None:
            found = f"//*[normalize-space(text())='{text}']"
            wait.until(lambda b: b.find_elements(By.XPATH, found))[0].click()

        click(CATEGORY)
        wait.until(lambda b: FIGURE in b.page_source)
        row = f"//tr[contains(., '{FIGURE}')]"
        buttons = wait.until(lambda b: b.find_elements(By.XPATH, f"{row}//a | {row}//button"))
        buttons[0].click()
        image = wait.until(
            lambda b: [i for i in b.find_elements(By.TAG_NAME, "img") if int(i.get_property("naturalWidth")) > 500]
        )
        browser.save_screenshot(str(screenshot))
        print(f"{report}: {FIGURE} shown, {image[0].get_property('naturalWidth')} pixels wide")


if __name__ == "__main__":
    look(*map(Path, sys.argv[1:3]))
