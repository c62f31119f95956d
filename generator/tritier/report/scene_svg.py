"""A scene as an SVG element: literal colours of the light theme, and classes that CSS themes."""

from __future__ import annotations

from tritier.report.palette import colours
from tritier.report.scene import Box, Group, Line, Scene, Shape, Text
from tritier.report.text_size import text_width

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', Arial, sans-serif"
_LEGEND_HEIGHT = 34.0
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;"})


def escaped(text: str) -> str:
    """Text for HTML and XML, in elements and in quoted attributes.

    Characters that XML does not know (control characters, half surrogates) become U+FFFD.
    """
    return drawable(text).translate(_MARKUP)


def drawable(text: str) -> str:
    """The text with U+FFFD for what is no character of XML."""
    return "".join(c if _is_xml(c) else "\ufffd" for c in text)


def scene_svg(scene: Scene, name: str, title: str, caption: str, style: str | None = None) -> str:
    """The scene as one SVG element. `name` starts its ids, so that they are unique on a page.

    With `style`, the SVG is a file of its own: it has this CSS, a ground and the legend.
    """
    if style is None:
        inside, height = _body(scene, name), scene.height
        extra = ""
    else:
        legend = _LEGEND_HEIGHT if scene.legend else 0.0
        height = scene.height + legend
        extra = (
            f"<style>{style.replace('<', '&lt;')}</style>\n"
            f'<rect width="{_n(scene.width)}" height="{_n(height)}" class="tt-f-bg" '
            f'fill="{_LIGHT["bg"]}"/>\n{_legend(scene, name)}'
        )
        inside = f'<g transform="translate(0 {_n(legend)})">\n{_body(scene, name)}</g>\n'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="tt-svg" role="img" '
        f'aria-labelledby="{name}-t {name}-d" viewBox="0 0 {_n(scene.width)} {_n(height)}" '
        f'width="{_n(scene.width)}" height="{_n(height)}" font-family="{FONT}">\n'
        f'<title id="{name}-t">{escaped(title)}</title>\n'
        f'<desc id="{name}-d">{escaped(caption)}</desc>\n'
        f"{_definitions(scene, name)}{extra}{inside}</svg>\n"
    )


def swatch_svg(shape: Box | Line, name: str) -> str:
    """A small picture of a shape for a legend in HTML."""
    return (
        f'<svg class="tt-swatch" aria-hidden="true" viewBox="0 0 26 16" width="26" height="16">'
        f"{_shape(shape, name)}</svg>"
    )


_LIGHT = colours("light")


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _is_xml(character: str) -> bool:
    code = ord(character)
    if code < 0x20:
        return character in "\t\n\r"
    return code < 0x7F or 0xA0 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or code > 0xFFFF


def _definitions(scene: Scene, name: str) -> str:
    """Arrow heads and stripes, one for each role that needs them."""
    shapes = [shape for group in scene.groups for shape in group.shapes]
    shapes += [shape for _, shape in scene.legend]
    arrows = {(s.stroke, round(s.head)) for s in shapes if isinstance(s, Line) and s.arrow}
    stripes = {shape.hatch for shape in shapes if isinstance(shape, Box) and shape.hatch}
    made = [
        f'<marker id="{name}-a{size}-{role}" viewBox="0 0 8 8" refX="0.4" refY="4" '
        f'markerWidth="{size}" markerHeight="{size}" markerUnits="userSpaceOnUse" orient="auto">'
        f'<path d="M0 0L8 4L0 8z" class="tt-f-{role}" fill="{_LIGHT[role]}"/></marker>\n'
        for role, size in sorted(arrows)
    ]
    made += [
        f'<pattern id="{name}-h-{role}" width="6" height="6" patternUnits="userSpaceOnUse" '
        f'patternTransform="rotate(45)"><rect width="2.4" height="6" class="tt-f-{role}" '
        f'fill="{_LIGHT[role]}"/></pattern>\n'
        for role in sorted(stripes)
    ]
    return f"<defs>{''.join(made)}</defs>\n" if made else ""


def _body(scene: Scene, name: str) -> str:
    return "".join(_group(group, name) for group in scene.groups)


def _group(group: Group, name: str) -> str:
    attributes = f' class="{group.kind}"' if group.kind else ""
    attributes += "".join(f' data-{key}="{value}"' for key, value in group.data)
    title = f"<title>{escaped(group.title)}</title>" if group.title else ""
    inside = "".join(_shape(shape, name) for shape in group.shapes)
    return f"<g{attributes}>{title}{inside}</g>\n"


def _shape(shape: Shape, name: str) -> str:
    if isinstance(shape, Box):
        return _box(shape, name)
    return _line(shape, name) if isinstance(shape, Line) else _text(shape)


def _box(box: Box, name: str) -> str:
    place = f'x="{_n(box.x)}" y="{_n(box.y)}" width="{_n(box.width)}" height="{_n(box.height)}"' + (
        f' rx="{_n(box.radius)}"' if box.radius else ""
    )
    classes = [box.kind] if box.kind else []
    paint = ' fill="none"'
    if box.fill:
        classes.append(f"tt-f-{box.fill}")
        paint = f' fill="{_LIGHT[box.fill]}"'
    if box.stroke:
        classes.append(f"tt-k-{box.stroke}")
        paint += f' stroke="{_LIGHT[box.stroke]}" stroke-width="{_n(box.stroke_width)}"'
        paint += ' stroke-dasharray="5 3"' if box.dashed else ""
    kinds = f' class="{" ".join(classes)}"' if classes else ""
    if box.hatch:
        return f'<rect {place} class="tt-far-only" fill="url(#{name}-h-{box.hatch})"/>'
    return f"<rect {place}{kinds}{paint}/>"


def _line(line: Line, name: str) -> str:
    head = f' marker-end="url(#{name}-a{line.head:.0f}-{line.stroke})"' if line.arrow else ""
    dashes = ' stroke-dasharray="5 4"' if line.dashed else ""
    kind = f"{line.kind} " if line.kind else ""
    return (
        f'<path d="{path_data(line)}" class="{kind}tt-k-{line.stroke}" fill="none" '
        f'stroke="{_LIGHT[line.stroke]}" stroke-width="{_n(line.width)}"{dashes}{head}/>'
    )


def path_data(line: Line) -> str:
    """The `d` of a line. A smooth one leaves and reaches each of its points going down."""
    (x, y), *rest = line.shaft
    made = f"M{_n(x)} {_n(y)}"
    for to_x, to_y in rest:
        if not line.smooth or to_x == x:
            made += f"L{_n(to_x)} {_n(to_y)}"
        else:
            middle = (y + to_y) / 2
            made += f"C{_n(x)} {_n(middle)} {_n(to_x)} {_n(middle)} {_n(to_x)} {_n(to_y)}"
        x, y = to_x, to_y
    return made


def _text(text: Text) -> str:
    weight = ' font-weight="600"' if text.bold else ""
    anchor = "" if text.anchor == "start" else f' text-anchor="{text.anchor}"'
    halo = ""
    kind = f"tt-f-{text.role}"
    if text.halo:
        kind += f" tt-k-{text.halo}"
        halo = (
            f' stroke="{_LIGHT[text.halo]}" stroke-width="4" stroke-linejoin="round" '
            'paint-order="stroke"'
        )
    return (
        f'<text x="{_n(text.x)}" y="{_n(text.y)}" class="{kind}" fill="{_LIGHT[text.role]}" '
        f'font-size="{_n(text.size)}"{anchor}{weight}{halo}>{escaped(text.text)}</text>'
    )


def _legend(scene: Scene, name: str) -> str:
    made, x = "", 12.0
    for label, shape in scene.legend:
        made += f'<g transform="translate({_n(x)} 9)">{_shape(shape, name)}'
        made += _text(Text(32, 12, label, size=12)) + "</g>\n"
        x += 32 + text_width(label, 12) + 18
    return made
