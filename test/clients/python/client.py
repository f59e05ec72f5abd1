"""Writes and reads a document over TLS with a token, as a Python team would; prints what it saw as one line of JSON.

Usage: client.py ADDRESS CA_FILE, with the token in TOKEN.
"""

import json
import os
import sys
import uuid

import grpc
from google.rpc import error_details_pb2, status_pb2

from jeex.persistence.v1 import document_service_pb2 as documents
from jeex.persistence.v1 import document_service_pb2_grpc
from jeex.persistence.v1 import project_service_pb2 as projects
from jeex.persistence.v1 import project_service_pb2_grpc
from jeex.persistence.v1 import user_service_pb2 as users
from jeex.persistence.v1 import user_service_pb2_grpc


def error_info(error: grpc.RpcError) -> error_details_pb2.ErrorInfo:
    """The google.rpc.ErrorInfo that every error of the service carries."""
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    next(detail for detail in status.details if detail.Is(info.DESCRIPTOR)).Unpack(info)
    return info


def main(address: str, ca_file: str) -> dict:
    with open(ca_file, "rb") as file:
        tls = grpc.ssl_channel_credentials(file.read())
    credentials = grpc.composite_channel_credentials(tls, grpc.access_token_call_credentials(os.environ["TOKEN"]))
    with grpc.secure_channel(address, credentials) as channel:
        email = f"{uuid.uuid4()}@example.org"
        request = users.CreateUserRequest(email=email, name="Python")
        owner = user_service_pb2_grpc.UserServiceStub(channel).CreateUser(request, timeout=10).user.id
        actor = [("x-actor-id", owner)]

        request = projects.CreateProjectRequest(name="From Python", language="en")
        stub = project_service_pb2_grpc.ProjectServiceStub(channel)
        project = stub.CreateProject(request, metadata=actor, timeout=10).project.id

        stub = document_service_pb2_grpc.DocumentServiceStub(channel)
        append = documents.AppendVersionRequest(project_id=project, document_type="idea", content="# Größer\n")
        version = stub.AppendVersion(append, metadata=actor, timeout=10).version
        read = documents.GetVersionRequest(project_id=project, document_type="idea", view=documents.VIEW_FULL)
        content = stub.GetVersion(read, metadata=actor, timeout=10).version.content

        append.expected_version = 0
        try:
            stub.AppendVersion(append, metadata=actor, timeout=10)
        except grpc.RpcError as error:
            info = error_info(error)
            refused = {"code": error.code().name, "reason": info.reason, "metadata": dict(info.metadata)}
        return {"version": version.version, "content": content, "refused": refused}


print(json.dumps(main(*sys.argv[1:])))
