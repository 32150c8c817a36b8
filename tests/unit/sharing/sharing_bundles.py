"""Small bundles, keys and sites for the tests of sharing."""

from __future__ import annotations

import datetime
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vol3d.sharing.store import Store
from vol3d.sharing.trust import Signer, Trust

NAME = "tiny_ct_segmentation"
TODAY = datetime.datetime.now(datetime.timezone.utc)

METADATA: dict[str, Any] = {
    "version": "1.0.0",
    "monai_version": "1.6.1",
    "pytorch_version": "2.13.0",
    "numpy_version": "2.4.6",
    "required_packages_version": {"nibabel": "5.4.2"},
    "name": "Tiny CT segmentation",
    "task": "Tests",
    "task_type": "segmentation",
    "description": "A network of a few numbers.",
    "authors": "vol3d",
    "copyright": "Copyright (c) vol3d",
    "intended_use": "Tests of vol3d.",
    "network_data_format": {
        "inputs": {"image": {"num_channels": 1, "spatial_shape": [16, 16, 16]}},
        "outputs": {"pred": {"num_channels": 2, "spatial_shape": [16, 16, 16]}},
    },
}

INFERENCE = """\
workflow_type: inference
bundle_root: "."
dataset_dir: datasets
output_dir: "$@bundle_root + '/eval'"
ckpt_path: "$@bundle_root + '/models/model.pt'"
device: "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"
files: null
network_def:
  _target_: UNet
  spatial_dims: 3
  in_channels: 1
  out_channels: 2
  channels: [4, 8]
  strides: [2]
network: "$@network_def.to(@device)"
preprocessing:
  _target_: Compose
  transforms:
    - _target_: LoadImaged
      keys: image
      reader: NibabelReader
      ensure_channel_first: true
dataset:
  _target_: Dataset
  data: ["$dict(image=@dataset_dir + '/volume.nii')"]
  transform: "@preprocessing"
dataloader:
  _target_: DataLoader
  dataset: "@dataset"
inferer:
  _target_: SlidingWindowInferer
  roi_size: [16, 16, 16]
postprocessing:
  _target_: Compose
  transforms:
    - _target_: AsDiscreted
      keys: pred
      argmax: true
    - _target_: SaveImaged
      keys: pred
      output_dir: "@output_dir"
      output_postfix: seg
      separate_folder: false
      writer: NibabelWriter
      print_log: false
checkpoint_loader:
  _target_: CheckpointLoader
  load_path: "@ckpt_path"
  load_dict:
    model: "@network"
evaluator:
  _target_: SupervisedEvaluator
  device: "@device"
  val_data_loader: "@dataloader"
  network: "@network"
  inferer: "@inferer"
  postprocessing: "@postprocessing"
  val_handlers: ["@checkpoint_loader"]
initialize: ["$monai.utils.set_determinism(seed=0)"]
run: ["$@evaluator.run()"]
"""


def make_bundle(parent: Path, version: str = "1.0.0", *, weights_seed: int | None = 0, name: str = NAME) -> Path:
    """Write a bundle; ``weights_seed=None`` leaves the weights out, and torch alone."""
    root = parent / name
    for folder in ("configs", "docs", "models"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "LICENSE").write_text("Apache-2.0\n")
    (root / "docs/README.md").write_text("# Tiny CT segmentation\n\nA network for tests.\n")
    (root / "configs/metadata.json").write_text(json.dumps(METADATA | {"version": version}))
    (root / "configs/inference.yaml").write_text(INFERENCE)
    if weights_seed is not None:
        import torch  # noqa: PLC0415 - most tests need none
        from monai.networks.nets import UNet  # noqa: PLC0415

        torch.manual_seed(weights_seed)
        network = UNet(spatial_dims=3, in_channels=1, out_channels=2, channels=[4, 8], strides=[2])
        torch.save(network.state_dict(), root / "models/model.pt")
    return root


def add_script(root: Path) -> Path:
    """Give a bundle code of its own."""
    (root / "scripts").mkdir()
    script = root / "scripts/own_network.py"
    script.write_text("VALUE = 1\n")
    return script


@dataclass(frozen=True)
class KeyPair:
    private: Path
    public: Path

    @property
    def pem(self) -> str:
        return self.public.read_text()


def make_key(folder: Path, name: str = "key", curve: ec.EllipticCurve | None = None) -> KeyPair:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    pair = KeyPair(folder / f"{name}.pem", folder / f"{name}.pub")
    write_private(key, pair.private)
    pair.public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return pair


def write_private(key: ec.EllipticCurvePrivateKey, path: Path, password: bytes | None = None) -> None:
    lock = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, lock))


@dataclass(frozen=True)
class Authority:
    """A private CA in a folder, which gives out certificates."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    path: Path

    def issue(
        self,
        name: str,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CODE_SIGNING,
        days: tuple[int, int] = (-1, 30),
    ) -> tuple[Path, Path]:
        """Return the files of a new private key and its certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(name, self.certificate.subject, key.public_key(), days)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        key_path, certificate_path = self.folder / f"{name}.pem", self.folder / f"{name}.crt"
        write_private(key, key_path)
        certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return key_path, certificate_path


def make_authority(folder: Path, name: str = "Hospital CA") -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(name, subject, key.public_key(), (-60, 365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=1), critical=True)
        .add_extension(_key_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name.replace(' ', '-')}.crt"
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(folder, key, certificate, path)


def _builder(
    name: str, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: tuple[int, int]
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(TODAY + datetime.timedelta(days=days[0]))
        .not_valid_after(TODAY + datetime.timedelta(days=days[1]))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def signer_for(key: KeyPair, **changes: Any) -> Signer:
    expires = (TODAY + datetime.timedelta(days=30)).date().isoformat()
    fields = {"kind": "key", "pem": key.pem, "subject": "", "bundles": ("tiny_*",), "scripts": False}
    return Signer(**(fields | {"expires": expires} | changes))


@dataclass
class Site:
    """A site's home with a store, and a trust file that trusts one key."""

    home: Path
    trust: Trust

    @property
    def store(self) -> Store:
        return Store(self.home)

    def save_trust(self) -> None:
        self.trust.save(self.home / "trust.json")


def make_site(home: Path, *keys: KeyPair, **changes: Any) -> Site:
    trust = Trust()
    for number, key in enumerate(keys):
        trust.add(f"site-{number}", signer_for(key, **changes))
    site = Site(home, trust)
    site.save_trust()
    return site


def tree_of(root: Path) -> dict[str, bytes | str]:
    """Return every path below a folder with its content, or where a link points."""
    return {
        p.relative_to(root).as_posix(): str(p.readlink()) if p.is_symlink() else p.read_bytes() if p.is_file() else b""
        for p in root.rglob("*")
    }


def copy_bundle(root: Path, parent: Path) -> Path:
    return Path(shutil.copytree(root, parent / root.name))
