"""The artifacts that a run has registered in the metadata store of Kubeflow Pipelines (ML Metadata, gRPC).

The launcher of a step writes Markdown and HTML to the pipeline root, by default minio://mlpipeline/v2/artifacts.
Metrics have no file: their numbers are properties of the artifact. The property `store_session_info` says through which
server of the cluster the launcher wrote.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import fsspec
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from previts.storage import files

SERVICE = "ml_metadata.MetadataStoreService"
OWN = ("display_name", "store_session_info")  # properties that KFP adds
I64, F64, TEXT, PART = 3, 1, 9, 11  # types of fields
# The parts of metadata_store.proto that are needed: number, name and type of each field, * for a list.
MESSAGES: dict[str, list[tuple[int, str, int | str]]] = {
    "Value": [(1, "int_value", I64), (2, "double_value", F64), (3, "string_value", TEXT)],
    "Entry": [(1, "key", TEXT), (2, "value", "Value")],
    "Artifact": [(1, "id", I64), (2, "type_id", I64), (3, "uri", TEXT), (5, "custom_properties", "*Entry")],
    "ArtifactType": [(1, "id", I64), (2, "name", TEXT)],
    "Context": [(1, "id", I64)],
    "GetContextByTypeAndNameRequest": [(1, "type_name", TEXT), (2, "context_name", TEXT)],
    "GetContextByTypeAndNameResponse": [(1, "context", "Context")],
    "GetArtifactsByContextRequest": [(1, "context_id", I64)],
    "GetArtifactsByContextResponse": [(1, "artifacts", "*Artifact")],
    "GetArtifactTypesRequest": [],
    "GetArtifactTypesResponse": [(1, "artifact_types", "*ArtifactType")],
}


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="e2e_metadata.proto", package="ml_metadata", syntax="proto2")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, label, kind in fields:
            many = isinstance(kind, str) and kind.startswith("*")
            field = message.field.add(name=label, number=number, label=3 if many else 1)
            field.type = PART if isinstance(kind, str) else kind
            if isinstance(kind, str):
                field.type_name = f".ml_metadata.{kind.removeprefix('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ml_metadata.{name}")) for name in MESSAGES
    }


TYPES = _messages()


@dataclass(frozen=True)
class Artifact:
    """An artifact: the name of its output, its type such as system.Markdown, its URI and its properties."""

    name: str
    type: str
    uri: str
    properties: Mapping[str, Any]
    store: str

    def fault(self, server: str) -> str:
        """Return why the artifact is not as it should be, or "".

        Args:
            server: Address of the S3 server behind the pipeline root, with its keys: http://KEY:SECRET@HOST:PORT.
        """
        if self.type == "system.Metrics":
            numbers = [value for value in self.properties.values() if isinstance(value, int | float)]
            return "" if numbers else f"the metrics {self.uri} have no numbers"
        try:
            text = read(self.uri, server).decode()
        except Exception as error:  # stores raise many types
            return (
                f"{self.uri} cannot be read ({type(error).__name__}: {error}); it was written through {self.store}: "
                "forward the port of that server, and set PREVITS_E2E_ARTIFACTS=http://KEY:SECRET@localhost:PORT"
            )
        holds = "</html>" in text if self.type == "system.HTML" else bool(text.strip())
        return "" if holds else f"{self.uri} is no complete {self.type}: {text[:80]!r}"


def read(uri: str, server: str) -> bytes:
    """Return the file of an artifact. Query parameters of the pipeline root are part of its URI."""
    uri = uri.partition("?")[0].replace("minio://", "s3://")
    if not server or not uri.startswith("s3://"):
        return files.read_bytes(uri)
    scheme, _, rest = server.partition("://")
    keys, _, host = rest.rpartition("@")  # a secret may contain any character
    key, _, secret = keys.partition(":")
    store = fsspec.filesystem("s3", key=key, secret=secret, endpoint_url=f"{scheme}://{host}")
    data: bytes = store.cat_file(uri.partition("://")[2])
    return data


def artifacts(address: str, run_id: str) -> list[Artifact]:
    """Return the artifacts of a run; `address` is host:port of the service metadata-grpc-service."""
    import grpc

    with grpc.insecure_channel(address) as channel:

        def ask(name: str, **fields: Any) -> Any:
            call = channel.unary_unary(
                f"/{SERVICE}/{name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=TYPES[f"{name}Response"].FromString,
            )
            return call(TYPES[f"{name}Request"](**fields), timeout=60)

        context = ask("GetContextByTypeAndName", type_name="system.PipelineRun", context_name=run_id).context
        assert context.id, f"the metadata store {address} does not know run {run_id}"
        types = {item.id: item.name for item in ask("GetArtifactTypes").artifact_types}
        found = ask("GetArtifactsByContext", context_id=context.id).artifacts
    listed = []
    for item in found:
        values = {entry.key: value for entry in item.custom_properties for _, value in entry.value.ListFields()}
        own = {name: str(values.pop(name, "")) for name in OWN}
        store = json.loads(own["store_session_info"] or "null") or {}
        server = (store.get("Params") or {}).get("endpoint") or store.get("Provider", "the environment of the step")
        listed.append(Artifact(own["display_name"], types[item.type_id], item.uri, values, server))
    return listed
