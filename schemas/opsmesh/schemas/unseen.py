"""Characters that nobody sees, and those that steer a terminal or turn other text around.

A stranger's text is freed of them before a person, an agent or a terminal reads it. Tab and newline
stay, and the joiners that scripts and emoji need.
"""

from __future__ import annotations

import re
from typing import Final

# Control codes; what turns the direction of text (Unicode, UAX #9); zero-width characters; the tag
# block and the supplement of variation selectors, which carry hidden text; halves of surrogate
# pairs.
UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e0fff]"
)


def dropped(text: str) -> str:
    """The text without them."""
    return UNSEEN.sub("", text)


def marked(text: str) -> str:
    """The text with U+FFFD in the place of each: it can be seen that something was there."""
    return UNSEEN.sub("\ufffd", text)


def escaped(text: str) -> str:
    """The text with each as Python would write it: `\\x1b`, `\\u202e`."""
    return UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
