"""
Sphinx's configuration.  Sphinx builds the pages in this folder, and pydoctor the pages of the API.

Nothing is fetched from the network: the targets of links to other projects are looked up in the
installed packages.
"""

import posixpath
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GENERATED = HERE / "_build" / "generated"
sys.path.insert(0, str(HERE))

from docutils import nodes  # noqa: E402
from docutils.parsers.rst import directives  # noqa: E402
from sphinx.directives.code import CodeBlock  # noqa: E402
from sphinx.ext.intersphinx import missing_reference  # noqa: E402

import floors  # noqa: E402 - after sys.path is set
import generate  # noqa: E402
import kaproto  # noqa: E402

generate.writeInventories(GENERATED)

project = "kaproto"
author = "The kaproto maintainers"
version = release = kaproto.__version__
exclude_patterns = ["_build", "package.md"]
default_role = "py:obj"
html_theme = "furo"
html_title = f"kaproto {version}"
html_static_path = ["static"]
html_css_files = ["kaproto.css"]
html_show_copyright = False
html_copy_source = False
highlight_language = "none"

extensions = ["myst_parser", "sphinx.ext.intersphinx", "pydoctor.sphinx_ext.build_apidocs"]
intersphinx_mapping = {
    name: (url, str(GENERATED / f"{name}.inv")) for name, url in generate.ELSEWHERE.items()
}
pydoctor_url_path = "api"
pydoctor_args = [
    "--project-name=kaproto",
    "--project-url=../index.html",
    f"--template-dir={HERE / 'api' / 'templates'}",
    f"--project-version={version}",
    f"--project-base-dir={HERE.parent}",
    "--docformat=epytext",
    "--html-output={outdir}/api",
    *(
        f"--intersphinx-file={GENERATED / name}.inv::{url}"
        for name, url in generate.ELSEWHERE.items()
    ),
    str(HERE.parent / "kaproto"),
]


def resolveDoor(app: Any, environment: Any, node: Any, content: Any) -> Any:
    """
    Resolve a name that one of kaproto's public modules exports, such as
    C{kaproto.watch.LineCodec}, to its place in the API pages: the module, and for a method the
    class, that defines it.
    """
    target = node["reftarget"]
    for door in sorted(floors.DOORS, key=len, reverse=True):
        if target.startswith(f"{door}."):
            first, *rest = target.removeprefix(f"{door}.").split(".")
            found = getattr(import_module(door), first, None)
            for owner in getattr(found, "__mro__", ()) if rest else ():
                if rest[0] in vars(owner):
                    found = owner
                    break
            module = getattr(found, "__module__", None)
            if module is not None and module != door:
                node["reftarget"] = ".".join([module, getattr(found, "__name__", first), *rest])
                return missing_reference(app, environment, node, content)
    return None


def resolveFile(app: Any, doctree: Any, name: str) -> None:
    """
    Make links to the source files of other pages lead to the built pages.  The links to sources
    work for readers of the repository.
    """
    for node in doctree.findall(nodes.reference):
        path, mark, anchor = node.get("refuri", "").partition("#")
        target = posixpath.normpath(posixpath.join(posixpath.dirname(name), path))
        target, suffix = posixpath.splitext(target)
        if suffix in {".rst", ".md"} and target in app.env.found_docs:
            node["refuri"] = app.builder.get_relative_uri(name, target) + mark + anchor


def setup(app: Any) -> None:
    """
    Called by Sphinx.
    """
    # pydoctor replaces these directives with its own, which support only Python.  Restore them.
    for name in ("code", "code-block"):
        directives.register_directive(name, CodeBlock)
    app.connect("doctree-resolved", resolveFile)
    app.connect("missing-reference", resolveDoor)
