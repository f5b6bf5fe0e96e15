"""The explanation as a static web page: an explainer file becomes a folder that any web server can serve.

`write_site` writes the folder, `serve` shows it on this computer.
"""

from analyzer.explainer.web.server import serve as serve
from analyzer.explainer.web.site import Site as Site
from analyzer.explainer.web.site import write_site as write_site
