"""Keys that have no character, as WebDriver numbers them (W3C WebDriver, 17.4.2)."""

ENTER = "\ue007"
ESCAPE = "\ue00c"
CONTROL = "\ue009"
TAB = "\ue004"
RIGHT = "\ue014"
