"""The page itself: its security policy for scripts, and that it shows records as plain text."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from airflow_provider_coveo.plugins import page as page_module
from airflow_provider_coveo.plugins.page import content_security_policy, fragment, page


def parts(name: str) -> list[str]:
    return re.findall(rf"<{name}>(.*?)</{name}>", page(), re.DOTALL)


def test_the_policy_allows_only_the_page_s_own_style_script_and_requests() -> None:
    policy = dict(each.split(" ", 1) for each in content_security_policy().split("; "))
    for directive, name in (("script-src", "script"), ("style-src", "style")):
        (text,) = parts(name)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy.pop(directive) == f"'sha256-{digest}'"
    assert policy == {
        "default-src": "'none'",
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    }
    # This policy blocks both attributes.
    assert not re.search(r"<[^>]+\s(?:style|on\w+)=", page())


@pytest.mark.parametrize(
    "never",
    [
        *(
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "new Function",
            "srcdoc",
        ),
        *("_blank", "_top", "window.open", "confirm(", "alert(", "prompt(", "http://", "https://"),
    ],
)
def test_the_script_never_inserts_text_as_markup_or_opens_a_window(never: str) -> None:
    (script,) = parts("script")
    calls = script.replace("confirmClosing(", "")
    assert never not in calls


def test_all_addresses_are_relative() -> None:
    (script,) = parts("script")
    assert not re.search(r"""["']/[a-z]""", script)
    assert not re.search(r"fetch\([\"'`]/|URL\([\"'`]/", script)
    assert not re.search(r"""(?:href|src|action)=["']/""", page())


def test_the_fragment_for_airflow_2_s_layout_contains_the_session_s_token() -> None:
    text = fragment(csrf_token="IjA4.Zx-9_a")
    assert 'data-line="2" data-csrf="IjA4.Zx-9_a"' in text
    assert "<html" not in text
    assert "<body" not in text
    assert text.count("<script>") == text.count("</script>") == text.count("<style>") == 1


@pytest.mark.parametrize("token", ['"><script>', "a b", "a'b"])
def test_an_invalid_token_is_rejected(token: str) -> None:
    with pytest.raises(ValueError, match="CSRF"):
        fragment(csrf_token=token)


def test_every_selector_is_limited_to_the_page_and_does_not_restyle_airflow_2() -> None:
    (style,) = parts("style")
    flat = re.sub(r"@media[^{]+\{|\}\s*\}", "}", style)
    for selector in re.findall(r"(?:^|\})\s*([^{}@]+)\{", flat):
        for each in selector.split(","):
            if not each.strip().startswith((":root", "html:has", "body:has")):
                assert each.strip().startswith("#push-sources"), each


def palettes() -> list[dict[str, str]]:
    (style,) = parts("style")
    blocks = re.findall(r"\{([^{}]*--page:[^{}]*)\}", style)
    return [dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block)) for block in blocks]


def contrast(one: str, other: str) -> float:
    """Return the ratio that WCAG 2 defines."""

    def luminance(color: str) -> float:
        channels = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        red, green, blue = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("number", range(3))
def test_text_and_controls_have_enough_contrast(number: int) -> None:
    """The limits of WCAG 2, level AA: 4.5 for text, 3 for the edges of controls."""
    palette = palettes()[number]
    texts = ("text", "soft", "accent", "rebuild", "refresh", "incremental", "idle", "bad", "warn")
    pairs = {(text, behind): 4.5 for text in texts for behind in ("page", "card", "warn-soft")}
    pairs |= {("on-accent", "accent"): 4.5, ("text", "button"): 4.5}
    pairs |= {("edge", behind): 3.0 for behind in ("page", "card", "warn-soft", "button")}
    found = {pair: round(contrast(*(palette[name] for name in pair)), 2) for pair in pairs}
    assert {pair: ratio for pair, ratio in found.items() if ratio < pairs[pair]} == {}


def test_the_dark_palette_is_the_same_for_the_theme_and_the_preference() -> None:
    light, dark, preferred = palettes()
    assert dark == preferred
    assert light.keys() == dark.keys()


def test_every_control_has_a_label() -> None:
    assert page_module.page().count('aria-label="Filters"') == 1
    for label in re.findall(r"<label[^>]*>(.*?)</label>", page()):
        assert re.sub(r"<[^>]+>", "", label).strip()
