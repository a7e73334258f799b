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
from vsf_lib.jobs import messages
from vsf_lib.video.download.catalogue import BASES, LORAS, Source
from vsf_lib.video.download.downloads import (
    ASK,
    Downloads,
    Plan,
    button,
    fetch,
    found,
    label,
    plan,
    refusal,
)
from vsf_lib.video.download.landing import DamagedError, Landing, Remote, inside, spoken_size
from vsf_lib.video.single_file import kinds

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
        "import sys; from pathlib import Path; from vsf_lib.jobs.child import Child\n"
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


def test_a_file_of_the_same_size_is_another_one(hub, around, root):
    root.mkdir()
    own = root / "ein LoRA.safetensors"
    own.write_bytes(CONTENT[::-1])
    with pytest.raises(ModelError, match="is there already, but is not somebody/"):
        fetch(LORA, root, environment=around)
    assert own.read_bytes() == CONTENT[::-1]


def test_what_comes_to_be_there_meanwhile_is_not_replaced(hub, around, root):
    own = root / "ein LoRA.safetensors"
    hub.on_piece = lambda name, sent: own.write_text("the user's own")
    with pytest.raises(ModelError, match="is there by now: rename or move it, then try again"):
        fetch(LORA, root, environment=around)
    assert own.read_text() == "the user's own"
    own.unlink()
    hub.on_piece = None
    hub.served.clear()
    assert fetch(LORA, root, environment=around).read_bytes() == CONTENT
    assert hub.served == {}, "it was here already"


@pytest.mark.parametrize(("size", "sha256"), [(4, None), (6, None), (5, "0" * 64)])
def test_a_file_that_is_not_as_announced_is_dropped(tmp_path, size, sha256):
    """Small files have no checksum."""
    landing = Landing(tmp_path, LORA)
    landing.parts.mkdir(parents=True)
    part = landing.parts / "x.json"
    part.write_bytes(b"12345")
    with pytest.raises(DamagedError):
        landing.keep(Remote("x.json", size, sha256))
    assert not part.exists()
    assert not landing.has(Remote("x.json", size, sha256))


OTHER = "Wan-Leute/repackaged"


@pytest.fixture
def parts(hub, tmp_path):
    """Single files under names that hardly tell what they are, and the folders of their kinds."""
    wan_files = pytest.importorskip("wan_files")
    made = wan_files.save_files(tmp_path / "made")
    lora = wan_files.save_lora(tmp_path / "made" / "l.safetensors")
    contents = {
        "split/vae/a.safetensors": made.vae.read_bytes(),
        "b.safetensors": made.transformer.read_bytes(),
        "c_lora.safetensors": made.text_encoder.read_bytes(),
        "t2v/d.safetensors": lora.read_bytes(),
        "e.safetensors": CONTENT,
    }
    if _has_gguf():
        state = wan_files.own_transformer(made.pipe.transformer.state_dict())
        contents["f-Q8_0.gguf"] = wan_files.write_gguf(state, tmp_path / "made" / "f.gguf").read_bytes()
    hub.repos[OTHER] = Repo(contents)
    return contents


def _has_gguf():
    from importlib.util import find_spec

    return find_spec("gguf") is not None


def test_files_go_where_their_kind_is_looked_for(hub, around, root, parts):
    from vsf_lib.video.shelf import Shelf

    places = {
        kinds.TRANSFORMER: root / "diffusion_models",
        kinds.VAE: root / "VAE",
        kinds.TEXT_ENCODER: root / "text_encoder",
    }
    loras = root / "Lora"
    downloads = Downloads(root, loras, environment=around, files=places)
    wanted = {
        "split/vae/a.safetensors": places[kinds.VAE],
        "b.safetensors": places[kinds.TRANSFORMER],
        "c_lora.safetensors": places[kinds.TEXT_ENCODER],
        "t2v/d.safetensors": loras,
        "e.safetensors": loras,
        "f-Q8_0.gguf": places[kinds.TRANSFORMER],
    }
    for name, content in parts.items():
        source = Source.parse(f"{OTHER}/{name}")
        for _ in range(2):
            downloads.start(source)
            done = wait(downloads, source, "done", "failed")
            assert done.path == wanted[name] / source.name, done
        assert done.path.read_bytes() == content
        assert hub.served[name] == len(content), "the second time it is there, though under another kind"
        downloads.ask(source)
        assert wait(downloads, source, "done", "failed", "ready").path == done.path
        assert label(downloads.state(source)) == "Already here"
    assert hidden(root) == hidden(loras) == set()
    shelf = Shelf(root, loras, tuple(places.values()))
    assert shelf.lora_names() == ["d.safetensors", "e.safetensors"]
    assert shelf.part_names("vae") == ["a.safetensors"]
    assert shelf.part_names("text_encoder") == ["c_lora.safetensors"]
    transformers = {"b.safetensors", "f-Q8_0.gguf"} & {Path(name).name for name in parts}
    assert transformers <= set(shelf.model_names())


def test_without_such_folders_files_go_to_the_loras(around, root, parts):
    downloads = Downloads(root, root / "Lora", environment=around)
    source = Source(OTHER, "split/vae/a.safetensors")
    downloads.start(source)
    assert wait(downloads, source, "done", "failed").path == root / "Lora" / "a.safetensors"


def test_a_place_is_asked_for_by_the_files_name(root):
    places = {kind: root / name for name, kind in
              (("dit", kinds.TRANSFORMER), ("vae", kinds.VAE), ("te", kinds.TEXT_ENCODER))}  # fmt: skip
    downloads = Downloads(None, root / "Lora", files=places)
    for text, folder in (
        ("Comfy-Org/Wan_2.1_ComfyUI_repackaged/split_files/vae/wan_2.1_vae.safetensors", "vae"),
        ("Comfy-Org/Wan_2.1_ComfyUI_repackaged/split_files/text_encoders/umt5_xxl_fp16.safetensors", "te"),
        ("Comfy-Org/x/split_files/diffusion_models/wan2.1_t2v_1.3B_fp16.safetensors", "dit"),
        ("Kijai/WanVideo_comfy/umt5-xxl-enc-bf16.safetensors", "te"),
        ("Kijai/WanVideo_comfy/Wan2_1_VAE_bf16.safetensors", "vae"),
        ("city96/Wan2.1-T2V-14B-gguf/wan2.1-t2v-14b-Q4_K_M.gguf", "dit"),
        *((str(offer.source), "Lora") for offer in LORAS),
    ):
        assert downloads.root(Source.parse(text)) == root / folder, text
    with pytest.raises(SettingsError, match="no folder here"):
        downloads.root(BASES[0].source)
    assert Downloads(None, None, files=places).root(Source("a/b", "x_vae.safetensors")) == root / "vae"


def test_a_file_lands_on_another_disk(tmp_path, small_disk, parts):
    landing = Landing(tmp_path / "here", Source(OTHER, "x.safetensors"), {kinds.VAE: small_disk / "VAE"})
    content = parts["split/vae/a.safetensors"]
    landing.begin("a" * 40)
    landing.parts.mkdir()
    file = Remote("x.safetensors", len(content), None)
    (landing.parts / file.name).write_bytes(content)
    landing.keep(file)
    assert landing.land([file]) == small_disk / "VAE" / "x.safetensors"
    assert names(small_disk) == {"VAE/x.safetensors"}
    assert (small_disk / "VAE" / "x.safetensors").read_bytes() == content
    assert hidden(tmp_path / "here") == set()


def test_a_button_does_what_it_says(hub, around, root):
    """Two pages share the downloads: what one has asked for, the other has not seen."""
    downloads = Downloads(root, root / "Lora", environment=around)
    assert label(downloads.state(LORA)) == ASK
    downloads.press(LORA, ASK)
    says = label(wait(downloads, LORA, "ready"))
    assert says.startswith("Download 6.3 MB (")
    downloads.press(LORA, ASK)
    assert downloads.state(LORA).stage == "asking"
    wait(downloads, LORA, "ready")
    downloads.press(LORA, "Download 5.0 MB (1.0 GB free)")
    assert downloads.state(LORA).stage == "asking", "it was another version"
    wait(downloads, LORA, "ready")
    assert hub.served == {}
    downloads.press(LORA, label(downloads.state(LORA)))
    done = wait(downloads, LORA, "done", "failed")
    assert (label(done), done.plan.missing) == ("Already here", 0)
    downloads.press(LORA, label(done))
    assert wait(downloads, LORA, "done", "failed").path == done.path


def test_a_stopped_download_says_what_is_left(hub, around, root):
    downloads = Downloads(root, root / "Lora", environment=around)
    hub.piece_seconds = 0.1
    downloads.start(LORA)
    while not (now := downloads.state(LORA)).progress or now.progress.done < 3 * MB:
        assert now.busy, now
        time.sleep(0.05)
    downloads.cancel(LORA)
    stopped = wait(downloads, LORA, "cancelled")
    assert label(stopped).startswith("Resume the download: ")
    assert stopped.plan.missing <= 3.3 * MB
    assert stopped.ready


def test_the_page_shows_and_does_the_same(hub, around, root, tmp_path):
    gradio = pytest.importorskip("gradio")
    from vsf_lib.video.desk import Desk, Places
    from vsf_lib.video.ui.downloads import DownloadPanel

    desk = Desk(Places(tmp_path / "data", tmp_path / "videos", root, root / "Lora"))
    desk.downloads = Downloads(root, root / "Lora", environment=around)
    with gradio.Blocks():
        panel = DownloadPanel(desk)
    text = str(LORA)

    def update(made):
        go, _, state, seen = made
        return go.get("value"), state, seen

    first, second = (update(panel._look(text, None)) for _ in range(2))
    assert first[0] == second[0] == ASK
    panel._fetch(text, first[2])
    wait(desk.downloads, LORA, "ready")
    says, _, seen = update(panel._look(text, first[2]))
    assert says.startswith("Download 6.3 MB (")
    panel._fetch(text, second[2])  # this page still says ASK
    wait(desk.downloads, LORA, "ready")
    panel._fetch(text, None)
    wait(desk.downloads, LORA, "ready")
    panel._fetch(text, ["somebody/else", says, ""])
    wait(desk.downloads, LORA, "ready")
    assert hub.served == {}
    says, _, seen = update(panel._look(text, second[2]))
    panel._fetch(text, seen)
    wait(desk.downloads, LORA, "done")
    says, told, _ = update(panel._look(text, seen))
    assert says == "Already here"
    assert "Press Refresh" in told
    refused = panel._fetch("nonsense", None)
    assert "no name on the hub" in update(refused)[1]
    assert panel._look("nonsense", refused[3])[2] == gradio.update(), "it stays"
    desk.close()


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
        ("https://huggingface.co/a/b/blob/main/sub/x-Q8_0.gguf", Source("a/b", "sub/x-Q8_0.gguf")),
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
        ("a/b/x.ckpt", "no .safetensors or .gguf file"),
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
