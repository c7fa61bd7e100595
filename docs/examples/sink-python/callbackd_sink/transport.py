"""The socket that the daemon connects to, and its certificate."""

import base64
import os
import shutil
import subprocess
import tempfile
import urllib.parse

import grpc

# The longest path that the kernel takes for a socket.
MAX_SOCKET_PATH = 107
MAX_MESSAGE_BYTES = 64 << 20

OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.so_reuseport", 0),
)

_REQUEST = b"""
[req]
distinguished_name = name
x509_extensions = extensions
prompt = no
[name]
CN = localhost
[extensions]
subjectAltName = DNS:localhost
basicConstraints = critical, CA:TRUE
extendedKeyUsage = serverAuth, clientAuth
"""


class TransportError(Exception):
    """The plugin cannot be reached the way the daemon asks for."""


def listen(server, environ):
    """Lets the server listen on a socket of its own. Returns the rest of the
    handshake line, from NETWORK on."""
    folder = environ.get("PLUGIN_UNIX_SOCKET_DIR") or tempfile.mkdtemp(prefix="callbackd-sink-")
    path = os.path.abspath(os.path.join(folder, f"sink{os.getpid()}"))
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise TransportError(f"the path of the socket, {path}, has more than {MAX_SOCKET_PATH} bytes: set TMPDIR to a shorter one")
    address = "unix:" + urllib.parse.quote(path)
    client = environ.get("PLUGIN_CLIENT_CERT", "")
    if client:
        key, certificate = make_certificate()
        credentials = grpc.ssl_server_credentials([(key, certificate)], root_certificates=client.encode(), require_client_auth=True)
        bound = server.add_secure_port(address, credentials)
        own = base64.b64encode(der(certificate)).decode().rstrip("=")
    else:
        bound = server.add_insecure_port(address)
        own = ""
    if not bound:
        raise TransportError(f"listening on {path} failed")
    return f"unix|{path}|grpc|{own}"


def make_certificate():
    """Returns a private key and a certificate for "localhost", both PEM."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise TransportError(
            "callbackd asks for TLS, and the certificate for it is made with openssl, which is not installed: "
            'install it, or set tls = false in the block plugin "TYPE" of callbackd\'s configuration'
        )
    done = subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        + ["-days", "10950", "-config", "/dev/stdin", "-keyout", "-", "-out", "-"],
        input=_REQUEST,
        capture_output=True,
        timeout=10,
        env={**os.environ, "OPENSSL_CONF": "/dev/null"},
        check=False,
    )
    begin = done.stdout.find(b"-----BEGIN CERTIFICATE-----")
    if done.returncode != 0 or begin < 0:
        why = done.stderr.decode("utf-8", "replace").strip()
        raise TransportError(
            f"callbackd asks for TLS, and {openssl} could not make the certificate for it: {why}; "
            'or set tls = false in the block plugin "TYPE" of callbackd\'s configuration'
        )
    return done.stdout[:begin], done.stdout[begin:]


def der(pem):
    """Returns the bytes inside a PEM block."""
    return base64.b64decode(b"".join(pem.split(b"-----")[2].split()))
