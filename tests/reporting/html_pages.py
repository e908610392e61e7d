"""Reading of HTML pages."""

import base64
import io
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "link", "input", "img"}


class Page(HTMLParser):
    """Elements of a page with their attributes, rows of its tables, and whether all elements are closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.rows: list[list[str]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open[-3:]):
            self.rows[-1][-1] += data

    def values(self, tag: str, attribute: str) -> list[str]:
        return [attributes[attribute] for name, attributes in self.elements if name == tag and attribute in attributes]


def assert_self_contained(page: Page) -> None:
    links = [value for tag, attributes in page.elements for key, value in attributes.items() if key in ("src", "href")]
    assert links and all(link.startswith(("data:", "#")) for link in links)
    identifiers = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert {link[1:] for link in links if link.startswith("#")} <= set(identifiers)
    assert len(identifiers) == len(set(identifiers))


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))
