"""
How Sphinx builds the documentation: the pages here, and with pydoctor those of the API.

Nothing is fetched from the network: the targets of links to other projects are looked up in what
is installed.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
GENERATED = HERE / "_build" / "generated"
sys.path.insert(0, str(HERE))

import generate  # noqa: E402 - it is found only now
import kaproto  # noqa: E402 - the same

generate.writeAll(GENERATED)

project = "kaproto"
author = "The kaproto maintainers"
version = release = kaproto.__version__
exclude_patterns = ["_build"]
default_role = "py:obj"
html_theme = "alabaster"
html_theme_options = {"description": kaproto.__doc__, "fixed_sidebar": True}
html_show_copyright = False
highlight_language = "python"

extensions = ["myst_parser", "sphinx.ext.intersphinx", "pydoctor.sphinx_ext.build_apidocs"]
intersphinx_mapping = {
    name: (url, str(GENERATED / f"{name}.inv")) for name, url in generate.ELSEWHERE.items()
}
pydoctor_url_path = "api"
pydoctor_args = [
    "--project-name=kaproto",
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
