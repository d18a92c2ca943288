"""What every test stands on: the host's modules, the pack as the package xavi9videos, a NIM and a real server."""

import importlib.util
import signal
import sys
import tempfile

import pytest
from setup_host import HOSTS, REPO, host_path
from xdist.scheduler import LoadScopeScheduling

# The host's modules read their arguments and paths once, at import: they get a CPU and a base directory of their own.
sys.pycache_prefix, sys.dont_write_bytecode = str(HOSTS / "pycache"), False
sys.path.insert(0, str(host_path()))
BASE = tempfile.TemporaryDirectory(prefix="xavi9-host-")

# ComfyUI 0.24 puts comfy/ in front, whose utils.py would hide this one; its main.py imports it first too.
import utils  # noqa: E402, F401
from comfy.cli_args import args  # noqa: E402

args.cpu = True
args.use_pytorch_cross_attention = True
args.base_directory = BASE.name

# One name for the pack, by its own spec: with this root on sys.path, "nodes" would be ours instead of the host's.
_spec = importlib.util.spec_from_file_location("xavi9videos", REPO / "__init__.py",
                                               submodule_search_locations=[str(REPO)])
sys.modules["xavi9videos"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["xavi9videos"])


def pytest_configure(config):
    # A shell makes its background jobs ignore it, and so would each server that is to end by it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Two threads that wait for each other at every tiny tensor are slower than one, and much so on busy cores.
    import torch

    torch.set_num_threads(1)


class Together(LoadScopeScheduling):
    """A file's tests in one process, for its servers, and all of the browser's: one editor at a time.

    An editor waits more than it works. Three processes on two cores are faster than two, but what is to happen within a
    second then sometimes takes longer.
    """

    def _split_scope(self, nodeid):
        file = nodeid.partition("::")[0]
        return "browser" if "/browser/" in file else file


def pytest_xdist_make_scheduler(config, log):
    return Together(config, log)


def pytest_terminal_summary(terminalreporter):
    """Shows what a test has recorded as a "table", whichever process it ran in."""
    for report in terminalreporter.getreports("passed"):
        for text in (value for name, value in report.user_properties if name == "table"):
            terminalreporter.write_line(f"\n{text}")


@pytest.fixture(scope="session")
def nim():
    """A strict loopback NIM of the Cosmos3 family; each test that uses it finds it reset."""
    from nim.loopback import LoopbackNIM

    with LoopbackNIM(family="cosmos3") as loopback:
        yield loopback


@pytest.fixture(autouse=True)
def _reset_nim(request):
    if "nim" in request.fixturenames:
        request.getfixturevalue("nim").reset()


@pytest.fixture
def uncached(server):
    """Makes the server forget its results, else it answers with what the same graph made in an earlier test."""
    server.free(free_memory=True)
    # The host frees them after this, before the next prompt; /free alone would race with that one.
    image = {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}
    server.run({"1": image, "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})


@pytest.fixture(scope="session")
def server(nim, tmp_path_factory, record_testsuite_property):
    """The ComfyHost that all tests share, with this pack, whose Cosmos address is nim's."""
    from comfy_host import ComfyHost
    from samples import put_samples
    from tiny.models import put_models

    base = tmp_path_factory.mktemp("comfy")
    put_models(base / "models")
    with ComfyHost(base, env={"COSMOS_NIM_URL": nim.url, "OMP_NUM_THREADS": "1"}) as host:
        put_samples(host.base)
        # For the table of make matrix: what this server has, not what was asked for.
        for name, version in host.http.get("/xavi9/health").json()["versions"].items():
            record_testsuite_property(name, version)
        yield host
