"""The asv plugin: the site carries its own scripts and styles, and begins with a front page.

asv's page loads ten files from three other sites, and is blank without them. Here they come from
npm packages, whose versions and hashes package-lock.json pins; their licences go along. This
folder has no __init__.py, so asv does not look for benchmarks in it.
"""

import re
import shutil
from pathlib import Path

from asv.console import log
from asv.machine import Machine, MachineCollection
from asv.publishing import OutputPublisher
from asv.util import UserError

from benchmarks.dashboard import front_page, npm
from benchmarks.dashboard.history import History

HERE = Path(__file__).parent
MACHINE = "local"
ASV_PAGE = "graphs.html"  # index.html is the front page
SCRIPTS = {  # the name that asv's page asks for: the file in the npm package
    "jquery-3.3.1.min.js": "jquery/dist/jquery.min.js",
    "jquery.flot.min.js": "flot/jquery.flot.js",
    "jquery.flot.time.min.js": "flot/jquery.flot.time.js",
    "jquery.flot.selection.min.js": "flot/jquery.flot.selection.js",
    "jquery.flot.categories.min.js": "flot/jquery.flot.categories.js",
    "jquery.flot.orderBars.js": "flot-orderbars/js/jquery.flot.orderBars.js",
    "stupidtable.min.js": "stupid-table-plugin/stupidtable.min.js",
    "md5.min.js": "blueimp-md5/js/md5.min.js",
    "bootstrap.min.js": "bootstrap/dist/js/bootstrap.min.js",
    "bootstrap.min.css": "bootstrap/dist/css/bootstrap.min.css",
}
FONTS = "bootstrap/dist/fonts"  # which bootstrap.min.css refers to
LICENCES = re.compile(r"licen[cs]e", re.IGNORECASE)

REMOTE_TAG = re.compile(r'<(script|link)\b[^>]*?(src|href)="(?:https?:)?//[^"]*/([^"/]+)"[^>]*>')
REMOTE_LINK = re.compile(r'<a href="(?:https?:)?//[^"]*"[^>]*>(.*?)</a>', re.DOTALL)
GOES_ELSEWHERE = re.compile(
    r"""(?:src|href|action|content)\s*=\s*["']?\s*(?:https?:)?//   # a tag
    | url\(\s*["']?(?:https?:)?//                                  # a style sheet
    | @import\s+["'](?:https?:)?//
    | (?:ajax|fetch|open|getScript)\(\s*["'](?:https?:)?//         # a script
    """,
    re.VERBOSE | re.IGNORECASE,
)


def setup():
    """Describe the machine, under a neutral name and in this clone.

    asv would ask for it, use the host's name, and keep it in the home directory. Each field
    parts the curves of one machine from those of another: the memory and the kernel do not matter.
    """
    MachineCollection.get_machine_file_path = staticmethod(lambda: ".asv/machine.json")
    Machine.hardcoded_machine_name = MACHINE
    known = Machine.get_defaults()
    fields = {field: known[field] for field in ("arch", "cpu", "num_cpu")}
    MachineCollection.save(MACHINE, {"machine": MACHINE, **fields})


def copy_packages(packages, vendor):
    """Copy what the page needs, and of each package its licence."""
    for path in SCRIPTS.values():
        (vendor / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(packages / path, vendor / path)
    shutil.copytree(packages / FONTS, vendor / FONTS)
    for name in {path.split("/")[0] for path in SCRIPTS.values()}:
        licences = [path for path in (packages / name).iterdir() if LICENCES.search(path.name)]
        # One package names its licence there, and at the head of its script, only.
        for path in licences or [packages / name / "package.json"]:
            shutil.copy(path, vendor / name)


def made_local(page):
    """Return asv's page with its remote scripts and styles replaced by the copies."""

    def replacement(match):
        tag, attribute, name = match.groups()
        if name not in SCRIPTS:
            raise UserError(f"asv's page asks for {name}, of which publish.py knows no copy")
        rest = ">" if tag == "script" else ' rel="stylesheet">'
        return f'<{tag} {attribute}="vendor/{SCRIPTS[name]}"{rest}'

    page = REMOTE_TAG.sub(replacement, page)
    page = REMOTE_LINK.sub(r"\1", page)
    return page.replace('<a href="#/">Benchmark grid', '<a href="#/">Grid')


def remote_addresses(site):
    """Return what in the site would be loaded from elsewhere, as 'file: text'."""
    return [
        f"{path.relative_to(site)}: {match[0]}"
        for path in sorted(site.rglob("*"))
        if path.suffix in (".html", ".css", ".js")
        for match in GOES_ELSEWHERE.finditer(path.read_text(encoding="utf-8"))
    ]


class OfflineSite(OutputPublisher):
    """Runs after asv's own publishers, of which each has an `order`."""

    name = "offline"
    button_label = "Front page"
    description = "Scripts from here, and the front page"

    @classmethod
    def publish(cls, conf, repo, benchmarks, graphs, revisions):
        site = Path(conf.html_dir)
        log.info("Copying scripts and styles from npm packages")
        try:
            npm.install(HERE, site.parent / "npm")
        except npm.NpmError as error:
            raise UserError(str(error)) from None
        copy_packages(site.parent / "npm" / "node_modules", site / "vendor")

        for name in set(benchmarks):  # of which the page would ask for data that is not there
            if not (site / "graphs" / "summary" / f"{name}.json").exists():
                del benchmarks[name]

        index = site / "index.html"
        (site / ASV_PAGE).write_text(made_local(index.read_text()))
        feed = site / "regressions.xml"
        feed.write_text(feed.read_text().replace("index.html#", f"{ASV_PAGE}#"))
        (site / "error.html").unlink()  # it says that other sites cannot be reached
        log.info("Writing the front page")
        on_branch = set(repo.get_branch_commits(conf.branches[0]))
        numbers = {commit: number for commit, number in revisions.items() if commit in on_branch}
        history = History.load(conf, numbers)
        if not history.commits:
            raise UserError("no commit of this branch has been measured")
        index.write_text(front_page.render(history, site))
        if left := remote_addresses(site):
            raise UserError("the site would load from elsewhere:\n" + "\n".join(left))
