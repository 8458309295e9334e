"""Tags as XMP, in the three fields that programs for pictures read, beside whatever else a packet holds.

| field | read by | a tag in it |
|---|---|---|
| `digiKam:TagsList` | digiKam, Immich | `character/hatsune_miku` |
| `lr:hierarchicalSubject` | Lightroom, darktable, Immich | `character|hatsune_miku` |
| `dc:subject` | everything | `hatsune_miku` |

`with_tags` adds to a packet of another program and keeps its other fields, comments and prefixes. XML that declares
entities is refused, so a packet cannot grow on being read.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from typing import Final
from xml.sax.saxutils import escape

from efuda.tagging.writing.places import Refused

__all__ = ["read_tags", "with_tags"]

Element = ElementTree.Element
_RDF: Final = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_FIELDS: Final = {
    "digiKam": ("http://www.digikam.org/ns/1.0/", "TagsList", "Seq"),
    "lr": ("http://ns.adobe.com/lightroom/1.0/", "hierarchicalSubject", "Bag"),
    "dc": ("http://purl.org/dc/elements/1.1/", "subject", "Bag"),
}
_KNOWN: Final = {
    "http://www.w3.org/XML/1998/namespace": "xml",
    "adobe:ns:meta/": "x",
    _RDF: "rdf",
    **{space: prefix for prefix, (space, _, _) in _FIELDS.items()},
}
_BEGIN: Final = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'
_END: Final = '\n<?xpacket end="w"?>\n'
_CONTAINERS: Final = frozenset(f"{{{_RDF}}}{name}" for name in ("Bag", "Seq", "Alt"))
_NO_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MOST: Final = 16_000_000
_DEEPEST: Final = 100


def with_tags(packet: bytes | None, tags: Sequence[tuple[str, str]], *, replace: bool = False) -> bytes:
    """A packet with these tags in its three fields.

    Args:
        packet: another program's, whose other fields are kept; None for a new one.
        tags: (kind, name), for example ("character", "hatsune_miku").
        replace: whether these stand in place of the tags that are there, or are added to them.

    Returns:
        UTF-8, or the packet itself where it has them all.

    Raises:
        Refused: the packet is damaged, or declares entities.
    """
    clean = [(kind, _NO_XML.sub("\ufffd", name)) for kind, name in tags if name]
    forms = {
        "digiKam": [f"{kind}/{name.replace('/', '∕')}" for kind, name in clean],
        "lr": [f"{kind}|{name.replace('|', '｜')}" for kind, name in clean],
        "dc": [name for _, name in clean],
    }
    if packet is None:
        return _new(forms)
    root, prefixes = _parsed(packet)
    description = _description(root)
    changed = [_set(_list(root, description, field), forms[field], replace) for field in _FIELDS]
    if not any(changed):
        return packet
    text = "".join(_lines(root, prefixes))
    return (_BEGIN + text + _END).encode()


def read_tags(packet: bytes) -> list[str]:
    """The keywords of a packet's `dc:subject`, or of the other two fields where it has none.

    Raises:
        Refused: the packet is damaged.
    """
    root, _ = _parsed(packet)
    for field in ("dc", "digiKam", "lr"):
        if found := _read(root, field):
            return found
    return []


def _new(forms: dict[str, list[str]]) -> bytes:
    """A packet of nothing else."""
    fields = []
    for field, (_, name, container) in _FIELDS.items():
        items = "".join([f"<rdf:li>{_text(value)}</rdf:li>" for value in dict.fromkeys(forms[field])])
        fields.append(f"<{field}:{name}><rdf:{container}>{items}</rdf:{container}></{field}:{name}>\n")
    spaces = "".join(f' xmlns:{field}="{space}"' for field, (space, _, _) in _FIELDS.items())
    head = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="{_RDF}">\n<rdf:Description rdf:about=""{spaces}>\n'
    tail = "</rdf:Description>\n</rdf:RDF></x:xmpmeta>"
    return (_BEGIN + head + "".join(fields) + tail + _END).encode()


def _read(root: Element, field: str) -> list[str]:
    name = _qualified(field)
    for element in root.iter(name):
        listed = [one.text or "" for one in element.iter(f"{{{_RDF}}}li")]
        if listed or (element.text or "").strip():
            return listed or [(element.text or "").strip()]
    return [one.attrib[name] for one in root.iter() if name in one.attrib]


class _Tree(ElementTree.TreeBuilder):
    """Keeps comments and instructions, and notes which prefix stands for which namespace."""

    def __init__(self) -> None:
        super().__init__(insert_comments=True, insert_pis=True)
        self.prefixes: dict[str, str] = {}
        self._depth = 0

    def start_ns(self, prefix: str, uri: str) -> None:
        if prefix and prefix not in self.prefixes.values():
            self.prefixes.setdefault(uri, prefix)

    def start(self, tag: str, attrs: dict[str, str], /) -> Element:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise Refused("its XMP is nested too deeply")
        return super().start(tag, attrs)

    def end(self, tag: str, /) -> Element:
        self._depth -= 1
        return super().end(tag)


def _parsed(packet: bytes) -> tuple[Element, dict[str, str]]:
    """The tree, and the prefixes that it uses: namespace → prefix."""
    if len(packet) > _MOST:
        raise Refused("its XMP is too large")
    tree = _Tree()
    try:
        text = packet.decode("utf-16" if packet[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").strip("\0 \t\r\n")
        if re.search("<!(?:DOCTYPE|ENTITY)", text, re.IGNORECASE):
            raise Refused("its XMP declares entities")
        root = ElementTree.fromstring(text, ElementTree.XMLParser(target=tree))
    except (ElementTree.ParseError, UnicodeError, ValueError) as error:
        raise Refused("its XMP is damaged") from error
    if next(root.iter(f"{{{_RDF}}}RDF"), None) is None:
        raise Refused("its XMP is damaged")
    return root, tree.prefixes


def _qualified(field: str) -> str:
    space, name, _ = _FIELDS[field]
    return f"{{{space}}}{name}"


def _description(root: Element) -> Element:
    """The first rdf:Description, made where there is none."""
    rdf = next(root.iter(f"{{{_RDF}}}RDF"))
    found = rdf.find(f"{{{_RDF}}}Description")
    return (
        found if found is not None else ElementTree.SubElement(rdf, f"{{{_RDF}}}Description", {f"{{{_RDF}}}about": ""})
    )


def _list(root: Element, description: Element, field: str) -> Element:
    """The list of a field, made where there is none; a field that is plain text becomes a list."""
    name, container = _qualified(field), _FIELDS[field][2]
    element = next(root.iter(name), None)
    if element is None:
        element = ElementTree.SubElement(description, name)
        holder = next((one for one in root.iter() if name in one.attrib), None)
        element.text = holder.attrib.pop(name) if holder is not None else None
    found = next((one for one in element if one.tag in _CONTAINERS), None)
    if found is None:
        plain, element.text = (element.text or "").strip(), None
        found = ElementTree.SubElement(element, f"{{{_RDF}}}{container}")
        if plain:
            ElementTree.SubElement(found, f"{{{_RDF}}}li").text = plain
    return found


def _set(container: Element, values: Sequence[str], replace: bool) -> bool:
    """Add what is missing, or put these in place of all; whether that changed anything."""
    listed = container.findall(f"{{{_RDF}}}li")
    known = [one.text or "" for one in listed]
    values = list(dict.fromkeys(values))
    if replace and known != values:
        for one in listed:
            container.remove(one)
        known = []
    missing = [value for value in values if value not in set(known)]
    for value in missing:
        ElementTree.SubElement(container, f"{{{_RDF}}}li").text = value
    return bool(missing) or (replace and len(listed) != len(known))


def _lines(root: Element, prefixes: dict[str, str]) -> Iterator[str]:
    """The tree as text, every namespace declared at the root."""
    used = {name[1:].partition("}")[0]: None for one in root.iter() for name in _names(one) if name[0] == "{"}
    short: dict[str, str] = {}
    for space in used:
        wanted = prefixes.get(space) or _KNOWN.get(space) or ""
        free = (f"ns{number}" for number in range(1, len(used) + 2))
        taken = {*short.values(), *prefixes.values()}
        short[space] = wanted if wanted and wanted not in short.values() else next(p for p in free if p not in taken)
    spaces = "".join(f' xmlns:{prefix}="{_attribute(space)}"' for space, prefix in short.items() if prefix != "xml")
    yield from _element(root, short, spaces)


def _names(element: Element) -> list[str]:
    return [element.tag, *element.attrib] if isinstance(element.tag, str) else []


def _element(element: Element, short: dict[str, str], spaces: str = "") -> Iterator[str]:
    def name(qualified: str) -> str:
        space, _, local = qualified[1:].partition("}")
        return f"{short[space]}:{local}" if qualified[0] == "{" else qualified

    tag: object = element.tag
    if tag is ElementTree.Comment:
        yield f"<!--{element.text}-->"
    elif tag is ElementTree.ProcessingInstruction:
        yield f"<?{element.text}?>"
    else:
        attributes = "".join(f' {name(key)}="{_attribute(value)}"' for key, value in element.attrib.items())
        yield f"<{name(element.tag)}{spaces}{attributes}>{_text(element.text)}"
        for child in element:
            yield from _element(child, short)
        yield f"</{name(element.tag)}>"
    yield _text(element.tail)


def _text(text: str | None) -> str:
    return escape(text or "", {"\r": "&#13;"})


def _attribute(text: str) -> str:
    return escape(text, {'"': "&quot;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"})
