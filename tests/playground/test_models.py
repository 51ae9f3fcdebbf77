"""The page Models, used as a person would."""

from tests.playground.browsing import Browser


async def test_a_version_shows_what_it_takes_and_its_card_with_pictures(browser: Browser) -> None:
    browser.open("/", shows="stock 2")
    browser.wait_for_text("Forecasting: serving")
    browser.click_text("stock 2", ".q-item")
    browser.wait_for_text("Takes rows of 5 numbers a time step (open, high, low, close in USD;")
    browser.wait_for_text("seqserve forecast --model stock --file FILE.csv")
    browser.wait_for_text("Intended use")
    pictures = browser.wait_for(lambda _: browser.all(".sq-card img"), "pictures")
    assert len(pictures) == 2
    widths = browser.driver.execute_script(
        "return [...document.querySelectorAll('.sq-card img')].map(one => one.naturalWidth)"
    )
    assert min(widths) > 100
    assert "license: mit" not in browser.text
    browser.shot("models")


async def test_page_fits_a_phone_in_the_dark(browser: Browser) -> None:
    browser.resize(390, 844)
    browser.open("/", shows="sentiment 4")
    browser.click("#sq-theme")
    browser.click("#sq-theme")
    browser.click_text("sentiment 4", ".q-item")
    browser.wait_for_text("Intended use")
    assert browser.overflow() == []
    browser.shot("models-phone-dark")
