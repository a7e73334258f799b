"""Downloads through the real process and huggingface_hub, from a small server in place of the hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("huggingface_hub")

from small_hub import TOKEN, Hub, Repo, repo_of

from vsf_lib.errors import ModelError, SettingsError
from vsf_lib.video import messages
from vsf_lib.video.download.catalogue import BASES, LORAS, Source
from vsf_lib.video.download.downloads import Downloads, Plan, button, fetch, found, plan, refusal
from vsf_lib.video.download.landing import inside, spoken_size

MB = 1 << 20
WAN = "somebody/Wan-klein"
LORA = Source("somebody/loras", "sub/ein LoRA.safetensors")
PATHS = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
CONTENT = bytes(range(256)) * (6 * MB // 256)


def fake(**more: bytes) -> Repo:
    """A repository as large ones are, of bytes that nobody loads."""
    weights = {
        "transformer/diffusion_pytorch_model-00001-of-00002.safetensors": CONTENT,
        "transformer/diffusion_pytorch_model-00002-of-00002.safetensors": b"2" * 2000,
        "transformer/diffusion_pytorch_model.safetensors.index.json": b"{}",
        "text_encoder/model.safetensors": b"3" * 2000,
        "vae/diffusion_pytorch_model.safetensors": b"4" * 2000,
    }
    others = {
        "model_index.json": json.dumps({"_class_name": "WanPipeline"}).encode(),
        "transformer/config.json": b"{}",
        "tokenizer/spiece.model": b"5",
        "scheduler/scheduler_config.json": b"{}",
    }
    return Repo({**weights, **others, **more})


@pytest.fixture
def hub():
    with Hub() as server:
        server.repos[WAN] = fake()
        server.repos[LORA.id] = Repo({LORA.file: CONTENT})
        yield server


@pytest.fixture
def around(hub, tmp_path):
    """The processes' environment: the server above, and no cache or login of whoever runs the tests."""
    none = {"HF_TOKEN": "", "HF_HUB_OFFLINE": "0", "no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    return {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path / "home"), **none}


@pytest.fixture
def root(tmp_path):
    return tmp_path / "Modelle für Videos"


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def hidden(root: Path) -> set[str]:
    """What is left of downloads, beside their locks."""
    return {name for name in names(root / ".downloads") if not name.endswith(".lock")}


def test_a_model_arrives_whole(hub, around, root, wan):
    whole = repo_of(wan)
    for extra in ("README.md", "assets/picture.png", "vae/diffusion_pytorch_model.bin", "tokenizer/x.py",
                  "transformer/diffusion_pytorch_model.fp16.safetensors", "more/config.json"):  # fmt: skip
        whole.files[extra] = b"not needed" * 1000
    hub.repos[WAN] = whole
    source = Source.parse(f"https://huggingface.co/{WAN}/tree/main")
    asked = plan(source, root, environment=around)
    assert set(asked.files) == names(wan)
    assert (asked.total, asked.here) == (sum(path.stat().st_size for path in wan.rglob("*.*")), 0)
    assert asked.path == str(root / "Wan-klein")
    assert button(asked).startswith(f"Download {spoken_size(asked.total)} (")
    assert not root.exists(), "asking leaves nothing"
    seen = []
    path = fetch(source, root, seen.append, environment=around)
    assert path == root / "Wan-klein" == found(root, WAN)
    assert found(root, "another/Wan-klein") is None
    assert names(path) == names(wan) | {"download.json"}
    assert hidden(root) == set()
    assert isinstance(seen[0], Plan)
    before = len(hub.served)
    assert fetch(source, root, environment=around) == path
    asked = plan(source, root, environment=around)
    assert (asked.missing, button(asked), len(hub.served)) == (0, "Already here", before)


def test_a_killed_download_goes_on_where_it_was(hub, around, root):
    """The process dies in the middle of the large file, before anything can be seen where models are."""
    hub.piece_seconds = 0.05
    big = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
    got = threading.Event()
    hub.on_piece = lambda name, sent: got.set() if name == big and sent >= 4 * MB else None
    code = (
        "import sys; from pathlib import Path; from vsf_lib.video.child import Child\n"
        "child = Child('vsf_lib.video.download.fetching', 'it')\n"
        "child._say({'fetch': sys.argv[1], 'into': sys.argv[2]})\n"
        "print(child.pid, flush=True); child._process.wait()"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", code, WAN, str(root)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **around, "PYTHONPATH": PATHS},
    )
    child = int(owner.stdout.readline())
    assert got.wait(60)
    os.kill(child, 9)
    owner.wait(10)
    hub.on_piece, hub.piece_seconds = None, 0
    assert not (root / "Wan-klein").exists()
    assert found(root, WAN) is None
    assert list(root.glob("*/model_index.json")) == [], "a page does not offer it"
    asked = plan(Source(WAN), root, environment=around)
    assert 2 * MB <= asked.here < asked.total
    assert button(asked).startswith("Resume the download: ")
    hub.served.clear()
    path = fetch(Source(WAN), root, environment=around)
    assert (path / big).read_bytes() == CONTENT
    assert hub.served[big] <= len(CONTENT) - 2 * MB
    assert "model_index.json" not in hub.served, "what was whole is not fetched again"


def test_a_process_ends_with_its_owner(hub, around, root):
    hub.piece_seconds = 0.2
    process = subprocess.Popen(
        [sys.executable, "-m", "vsf_lib.video.download.fetching"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **around, "PYTHONPATH": PATHS},
    )
    process.stdin.write(json.dumps({"fetch": str(LORA), "into": str(root)}) + "\n")
    process.stdin.flush()
    while "fetching" not in (line := process.stdout.readline()):
        assert line
    process.stdin.close()
    assert process.wait(5) == 1
    assert hidden(root)


def test_a_cut_connection_is_mended(hub, around, root):
    hub.cuts[LORA.file] = [3 * MB, 2 * MB]
    hub.busy = 1
    seen = []
    path = fetch(LORA, root, seen.append, environment=around, pauses=(0.1, 0.1))
    assert path == root / "ein LoRA.safetensors"
    assert path.read_bytes() == CONTENT
    assert hub.served[LORA.file] <= len(CONTENT) + 2 * MB
    assert any(isinstance(event, messages.Note) and "interrupted" in event.text for event in seen)
    assert hidden(root) == set()


def test_a_connection_that_stays_cut_is_told_and_the_parts_kept(hub, around, root):
    hub.cuts[LORA.file] = [2 * MB, *[0] * 50]
    with pytest.raises(ModelError, match=r"connection to http://127.* failed: .* is kept"):
        fetch(LORA, root, environment=around, pauses=(0.1,))
    hub.cuts.clear()
    hub.served.clear()
    assert fetch(LORA, root, environment=around).read_bytes() == CONTENT
    assert hub.served[LORA.file] <= len(CONTENT) - MB


def test_what_arrives_damaged_does_not_land(hub, around, root):
    hub.damaged = {LORA.file}
    with pytest.raises(ModelError, match="another checksum"):
        fetch(LORA, root, environment=around, pauses=(0.1,))
    assert not (root / "ein LoRA.safetensors").exists()
    hub.damaged = set()
    assert fetch(LORA, root, environment=around).read_bytes() == CONTENT


def test_a_part_of_a_wrong_length_does_not_block(hub, around, root):
    hub.cuts[LORA.file] = [2 * MB, *[0] * 50]
    with pytest.raises(ModelError):
        fetch(LORA, root, environment=around, pauses=())
    (part,) = root.rglob("*.incomplete")
    part.write_bytes(CONTENT + b"too much")
    hub.cuts.clear()
    assert fetch(LORA, root, environment=around, pauses=(0.1, 0.1)).read_bytes() == CONTENT


def test_parts_that_nobody_goes_on_from_are_dropped(hub, around, root):
    """As newer versions of huggingface_hub leave them when they are killed."""
    hub.cuts[LORA.file] = [3 * MB, *[0] * 50]
    with pytest.raises(ModelError):
        fetch(LORA, root, environment=around, pauses=())
    (part,) = root.rglob("*.incomplete")
    part.with_suffix(".0123abcd.incomplete").write_bytes(CONTENT)
    part.with_suffix(".lock").write_text("")
    hub.cuts.clear()
    seen = []
    fetch(LORA, root, seen.append, environment=around)
    assert isinstance(seen[0], Plan)
    assert 2 * MB <= seen[0].here <= 3 * MB


@pytest.mark.parametrize("kept", [True, False])
def test_the_version_that_was_begun_is_finished(hub, around, root, kept):
    """The repository changes between two attempts: no mixture of both lands, or the new one alone."""
    big = "transformer/diffusion_pytorch_model-00001-of-00002.safetensors"
    small = "text_encoder/model.safetensors"
    hub.cuts[big] = [3 * MB, *[0] * 50]
    with pytest.raises(ModelError):
        fetch(Source(WAN), root, environment=around, pauses=())
    hub.cuts.clear()
    old = hub.repos[WAN]
    new = {**old.files, big: CONTENT[::-1], small: b"9" * 2000}
    hub.repos[WAN] = Repo(new, version="b" * 40, before=old if kept else None)
    path = fetch(Source(WAN), root, environment=around)
    expected = old.files if kept else new
    assert {name: (path / name).read_bytes() for name in (big, small)} == {
        name: expected[name] for name in (big, small)
    }


def test_too_small_a_disk_is_told_with_the_figures(tmp_path):
    small = Plan(str(tmp_path / "x"), ["x"], total=17_000_000_000, here=2_000_000_000, free=3_500_000_000)
    assert "15.0 GB are to be fetched, and 3.5 GB are free; free 11.5 GB" in refusal(small)
    assert refusal(Plan(small.path, ["x"], total=small.total, here=small.here, free=15_000_000_000)) == ""


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB."""
    place = tmp_path / "kleine Platte"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("makes a disk, which needs root")
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no disk can be made here")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_small_disk_is_refused_before_the_first_byte(hub, around, small_disk):
    with pytest.raises(ModelError, match=r"too small: 6\.3 MB are to be fetched, and 4\.\d MB are free"):
        fetch(LORA, small_disk, environment=around)
    assert hub.served == {}
    assert hidden(small_disk) == set()


def test_a_disk_that_fills_up_keeps_the_parts(hub, around, small_disk):
    hub.repos[LORA.id] = Repo({LORA.file: CONTENT[: 3 * MB]})
    hog = small_disk / "something else"
    hub.on_piece = lambda name, sent: hog.exists() or hog.write_bytes(bytes(2 * MB))
    with pytest.raises(ModelError, match="is full: free space on it; what was fetched is kept"):
        fetch(LORA, small_disk, environment=around, pauses=(0.1,))
    hub.on_piece = None
    hub.served.clear()
    hog.unlink()
    assert fetch(LORA, small_disk, environment=around).read_bytes() == CONTENT[: 3 * MB]
    assert hub.served[LORA.file] <= 2 * MB


def test_what_cannot_be_fetched_is_said_in_one_line(hub, around, root):
    hub.repos["some/gated"] = Repo(fake().files, gated=True)
    hub.repos["some/private"] = Repo(fake().files, private=True)
    hub.repos["some/pickles"] = Repo(
        {name.replace(".safetensors", ".bin"): content for name, content in fake().files.items()}
    )
    hub.repos["some/other"] = fake(**{"model_index.json": b'{"_class_name": "FluxPipeline"}'})
    hub.repos["some/leaving"] = Repo({"x/../../../evil.safetensors": CONTENT})
    for text, says in (
        ("some/gated", "accept its licence at https://huggingface.co/some/gated and log in with `hf auth l"),
        ("some/private", "there is no repository some/private, or it is private"),
        ("some/nothing", "there is no repository some/nothing"),
        ("some/pickles", "has no .safetensors files for its transformer"),
        ("somebody/loras", "has no model_index.json: name one of its files, such as somebody/loras/sub/ein"),
        ("some/other", "is a FluxPipeline, but videos are made with a WanPipeline"),
        ("somebody/loras/sub/ein Lora.safetensors", f"did you mean {LORA}?"),
        ("some/leaving/evil.safetensors", "which is no name for one"),
    ):
        with pytest.raises(ModelError) as caught:
            fetch(Source.parse(text), root, environment=around)
        assert says in str(caught.value)
        assert "\n" not in str(caught.value)
    assert hidden(root) == set()
    assert {path.name for path in (root / ".downloads").iterdir()} == {"other.lock"}, "nothing for the others"
    known = {**around, "HF_TOKEN": TOKEN}
    assert fetch(Source("some/gated"), root, environment=known) == root / "gated"
    with pytest.raises(ModelError, match=r"connection to http://127\.0\.0\.1:9 failed"):
        plan(LORA, root, environment={**around, "HF_ENDPOINT": "http://127.0.0.1:9"})
    with pytest.raises(ModelError, match="unset HF_HUB_OFFLINE"):
        plan(LORA, root, environment={**around, "HF_HUB_OFFLINE": "1"})


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/x", "a/../../x", "a/./x", "a\\..\\x", "C:/x", "C:x", "a//x", "a/", "", "a/.. /x", "a\0b"],
)
def test_a_server_cannot_choose_a_place(name, tmp_path):
    with pytest.raises(ModelError, match="no name for one"):
        inside(tmp_path, name)


def test_nothing_is_replaced(hub, around, root):
    root.mkdir()
    (root / "ein LoRA.safetensors").write_text("the user's own")
    (root / "Wan-klein").mkdir()
    for source in (LORA, Source(WAN)):
        with pytest.raises(ModelError, match="is there already, but is not somebody/"):
            fetch(source, root, environment=around)
    assert (root / "ein LoRA.safetensors").read_text() == "the user's own"
    assert hub.served == {}


def wait(downloads, source, *stages):
    end = time.monotonic() + 60
    while downloads.state(source).stage not in stages:
        assert time.monotonic() < end
        time.sleep(0.05)
    return downloads.state(source)


def test_a_page_can_ask_start_cancel_and_resume(hub, around, root):
    downloads = Downloads(root, root / "Lora", environment=around)
    assert downloads.state(LORA) is None
    downloads.ask(LORA)
    ready = wait(downloads, LORA, "ready")
    assert ready.ready
    assert button(ready.plan).startswith("Download 6.3 MB (")
    hub.piece_seconds = 0.1
    downloads.start(LORA)
    with pytest.raises(SettingsError, match="being fetched already"):
        downloads.start(LORA)
    with pytest.raises(ModelError, match="by this page or another program"):
        fetch_when_locked(root / "Lora", around)
    while not (now := downloads.state(LORA)).progress or now.progress.done < 3 * MB:
        assert now.busy, now
        time.sleep(0.05)
    assert 0 < now.share < 1
    assert " of 6.3 MB, " in now.text
    assert now.text.endswith(" left")
    began = time.monotonic()
    downloads.cancel(LORA)
    stopped = wait(downloads, LORA, "cancelled")
    assert time.monotonic() - began < 2
    assert stopped.ready
    assert names(root / "Lora") == {name for name in names(root / "Lora") if name.startswith(".downloads/")}
    hub.piece_seconds = 0
    hub.served.clear()
    downloads.start(LORA)
    done = wait(downloads, LORA, "done", "failed")
    assert (done.path, done.share) == (root / "Lora" / "ein LoRA.safetensors", 1.0)
    assert done.path.read_bytes() == CONTENT
    assert hub.served[LORA.file] <= 4 * MB
    downloads.ask(LORA)
    assert wait(downloads, LORA, "done").path == done.path
    nowhere = Source("some/nothing")
    downloads.start(nowhere)
    assert "there is no repository" in wait(downloads, nowhere, "failed").text
    with pytest.raises(SettingsError, match="no folder here"):
        Downloads(root, None).start(LORA)
    downloads.close()


def fetch_when_locked(root, around):
    """As another program would, once the first one holds its lock."""
    while not list(root.glob(".downloads/*/source.json")):
        time.sleep(0.05)
    fetch(LORA, root, environment=around)


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("Wan-AI/Wan2.1-T2V-1.3B-Diffusers", BASES[0].source),
        (" https://huggingface.co/Wan-AI/Wan2.1-T2V-1.3B-Diffusers/ ", BASES[0].source),
        (f"https://huggingface.co/{LORAS[0].source.id}/blob/main/{LORAS[0].source.file}", LORAS[0].source),
        (f"https://hf.co/{LORAS[0].source.id}/resolve/main/{LORAS[0].source.file}?download=true",
         LORAS[0].source),
        (str(LORAS[0].source), LORAS[0].source),
    ],
)  # fmt: skip
def test_names_and_addresses(text, means):
    assert Source.parse(text) == means


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no name on the hub"),
        ("wan", "give OWNER/NAME"),
        ("../x", "no name on the hub"),
        ("a/..", "no name on the hub"),
        ("a/b/x.ckpt", "no .safetensors file"),
        ("https://huggingface.co/a/b/tree/dev", "another version"),
        ("https://example.com/a/b", "no name on the hub"),
    ],
)
def test_names_that_are_none(text, says):
    with pytest.raises(SettingsError, match=says):
        Source.parse(text)


def test_a_page_and_the_process_import_nothing_heavy():
    code = (
        "import sys; import vsf_lib.video.download.downloads; assert 'huggingface_hub' not in sys.modules\n"
        "from vsf_lib.video.download import fetching, hub; hub.prepare(); import huggingface_hub.hf_api\n"
        "print(sorted({'torch', 'diffusers', 'transformers', 'gradio'} & set(sys.modules)))"
    )
    root = str(Path(__file__).parents[2])
    told = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_the_command_fetches_what_its_job_names(hub, around, wan, tmp_path, monkeypatch, capsys):
    pytest.importorskip("imageio_ffmpeg")
    wan_files = pytest.importorskip("wan_files")
    from vsf_lib.cli import main
    from vsf_lib.cli.download import placed
    from vsf_lib.video.files import read_infotext
    from vsf_lib.video.job import VideoJob

    lora = wan_files.save_lora(tmp_path / "lora.safetensors").read_bytes()
    hub.repos.update({WAN: repo_of(wan), LORA.id: Repo({LORA.file: lora})})
    for name, value in around.items():
        monkeypatch.setenv(name, value)
    here = tmp_path / "hier"
    here.mkdir()
    monkeypatch.chdir(here)
    words = ["video", "--model", WAN, "--lora", f"{LORA}:0.5", "--prompt", "x", "--size", "80x64",
             "--frames", "5", "--steps", "1", "--seed", "1"]  # fmt: skip
    for more, says in (([], "there is no LoRA"), (["--lora", str(tmp_path / "lora.safetensors")], WAN)):
        assert main([*(words[:3] + words[5:] if more else words), *more]) == 2
        err = capsys.readouterr().err
        assert says in err
        assert ("add --download to fetch it into" in err) == bool(more)
        assert list(here.iterdir()) == []
    assert main([*words, "--download"]) == 0
    streams = capsys.readouterr()
    assert f"downloading {len(names(wan))} files, " in streams.err
    assert "free)" in streams.err
    folder = here / "models" / "diffusers" / "Wan-klein"
    assert str(folder) in read_infotext(Path(streams.out.strip()))
    assert (here / "models" / "Lora" / LORA.name).read_bytes() == lora
    hub.requests.clear()
    job = VideoJob.create(prompt="x", model=WAN, loras=[{"file": str(LORA)}])
    again = placed(job, download=False)
    assert (again.model, again.loras[0].file) == (str(folder), str(here / "models" / "Lora" / LORA.name))
    assert placed(again, download=True) == again
    assert hub.requests == []
    assert main([*words[:2], str(tmp_path / "gone"), *words[3:], "--download"]) == 2
    assert main([*words[:2], "some/nothing", *words[3:], "--download"]) == 2
    assert "there is no repository some/nothing" in capsys.readouterr().err


def test_the_overlay_comes_first_and_a_missing_package_is_named(around, root, tmp_path):
    package = tmp_path / "overlay" / "huggingface_hub"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the one of the overlay')")
    with pytest.raises(ModelError, match=r"the one of the overlay.*pip install huggingface_hub"):
        plan(LORA, root, overlay=package.parent, environment=around)
