"""A Hugging Face Hub on 127.0.0.1: as much of its API as huggingface-hub asks for, and faults on demand."""

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit


def etag_of(name: str, data: bytes) -> str:
    if name.endswith('.safetensors'):
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


@dataclass
class Repo:
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    private: bool = False

    def commit(self, files: dict[str, bytes], ref: str = 'main') -> str:
        merged = {**self.commits.get(self.refs.get(ref, ''), {}), **files}
        text = f'{len(self.commits)} {ref} {sorted((k, etag_of(k, v)) for k, v in merged.items())}'
        oid = hashlib.sha1(text.encode()).hexdigest()
        self.commits[oid] = merged
        self.refs[ref] = oid
        return oid


@dataclass
class Fault:
    """What goes wrong with the bodies of the next GETs of files, or with every answer."""

    cut: int = 0  # bodies that break off in the middle
    flip: int = 0  # bodies with a changed byte
    status: int = 0  # answer everything so


class HubServer:
    TOKEN = 'hf_test'

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.fault = Fault()
        self.xet: str | None = None  # address of the store that LFS files are said to lie in
        self.log: list[tuple[str, str, str]] = []
        server = self

        class Handler(_Handler):
            hub = server

        self.http = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self.url = f'http://127.0.0.1:{self.http.server_address[1]}'
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()

    def gets(self, name: str) -> list[str]:
        """Ranges of the GETs of a file's body; '' is the whole."""
        return [what for method, path, what in self.log if method == 'GET' and path.endswith(f'/{name}')]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer

    def log_message(self, *args) -> None:
        pass

    def reply(self, status: int, body: bytes | dict = b'', headers: dict[str, str] | None = None) -> None:
        if isinstance(body, dict):
            body, headers = json.dumps(body).encode(), {'Content-Type': 'application/json', **(headers or {})}
        self.send_response(status)
        for key, value in {'Content-Length': str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def fail(self, status: int, code: str, message: str) -> None:
        self.reply(status, {'error': message}, {'X-Error-Code': code, 'X-Error-Message': message})

    def handle_any(self) -> None:
        path = unquote(urlsplit(self.path).path)
        length = int(self.headers.get('Content-Length') or 0)
        body = self.rfile.read(length)
        self.hub.log.append((self.command, path, self.headers.get('Range') or ''))
        if self.hub.fault.status:
            return self.reply(self.hub.fault.status)
        if self.command in ('POST', 'PUT') and 'lfs-put' not in path and not self.authorised():
            return self.fail(401, '', 'Invalid credentials in Authorization header')
        for pattern, method in (
            (r'/api/repos/create', self.create),
            (r'/api/validate-yaml', self.validate_yaml),
            (r'/api/models/([^/]+/[^/]+)/branch/(.+)', self.branch),
            (r'/api/models/([^/]+/[^/]+)/preupload/(.+)', self.preupload),
            (r'/api/models/([^/]+/[^/]+)/commit/(.+)', self.commit),
            (r'/api/models/([^/]+/[^/]+)/xet-read-token/(.+)', self.xet_token),
            (r'/api/models/([^/]+/[^/]+)(?:/revision/(.+))?', self.info),
            (r'/([^/]+/[^/]+)\.git/info/lfs/objects/batch', self.batch),
            (r'/lfs-put/(\w+)', self.put),
            (r'/([^/]+/[^/]+)/resolve/([^/]+)/(.+)', self.resolve),
        ):
            if match := re.fullmatch(pattern, path):
                return method(body, *match.groups())
        return self.fail(404, 'NotFound', f'no such page: {path}')

    do_GET = do_HEAD = do_POST = do_PUT = handle_any

    def authorised(self) -> bool:
        return self.headers.get('Authorization') == f'Bearer {self.hub.TOKEN}'

    def find(self, name: str, revision: str | None) -> tuple[Repo, str] | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and not self.authorised()):
            self.fail(404 if self.authorised() else 401, 'RepoNotFound', 'Repository not found')
            return None
        oid = repo.refs.get(revision or 'main', revision)
        if oid not in repo.commits:
            self.fail(404, 'RevisionNotFound', f'Invalid rev id: {revision}')
            return None
        return repo, oid

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        name = f'{asked["organization"] or "me"}/{asked["name"]}'
        if name in self.hub.repos:
            return self.reply(409, {'error': 'exists', 'url': f'{self.hub.url}/{name}'})
        private = asked.get('visibility') == 'private' or bool(asked.get('private'))
        repo = self.hub.repos[name] = Repo(private=private)
        repo.commit({'.gitattributes': b'*.safetensors filter=lfs diff=lfs merge=lfs -text\n'})
        self.reply(200, {'url': f'{self.hub.url}/{name}', 'name': name})

    def validate_yaml(self, body: bytes) -> None:
        self.reply(200, {'errors': [], 'warnings': []})

    def branch(self, body: bytes, name: str, branch: str) -> None:
        repo = self.hub.repos[name]
        if branch in repo.refs:
            return self.reply(409, {'error': 'exists'})
        repo.refs[branch] = repo.refs['main']
        self.reply(200, {})

    def info(self, body: bytes, name: str, revision: str | None) -> None:
        if found := self.find(name, revision):
            repo, oid = found
            files = [{'rfilename': k} for k in repo.commits[oid]]
            self.reply(200, {'id': name, 'modelId': name, 'sha': oid, 'siblings': files, 'private': repo.private})

    def xet_token(self, body: bytes, name: str, revision: str) -> None:
        told = {'X-Xet-Cas-Url': self.hub.xet or '', 'X-Xet-Access-Token': 'x', 'X-Xet-Token-Expiration': '9999999999'}
        self.reply(200, b'', told)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self.find(name, revision):
            paths = [f['path'] for f in json.loads(body)['files']]
            modes = {p: 'lfs' if p.endswith('.safetensors') else 'regular' for p in paths}
            files = [{'path': p, 'uploadMode': modes[p], 'shouldIgnore': False} for p in paths]
            self.reply(200, {'files': files})

    def batch(self, body: bytes, name: str) -> None:
        objects = []
        for wanted in json.loads(body)['objects']:
            upload = {'upload': {'href': f'{self.hub.url}/lfs-put/{wanted["oid"]}', 'header': {}}}
            objects.append({**wanted, 'actions': upload} if wanted['oid'] not in self.hub.lfs else dict(wanted))
        self.reply(200, {'transfer': 'basic', 'objects': objects}, {'Content-Type': 'application/vnd.git-lfs+json'})

    def put(self, body: bytes, oid: str) -> None:
        if hashlib.sha256(body).hexdigest() != oid:
            return self.reply(400)
        self.hub.lfs[oid] = body
        self.reply(200)

    def commit(self, body: bytes, name: str, revision: str) -> None:
        found = self.find(name, revision)
        if not found:
            return
        files = {}
        for line in body.decode().splitlines():
            entry = json.loads(line)
            value = entry['value']
            if entry['key'] == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif entry['key'] == 'lfsFile':
                files[value['path']] = self.hub.lfs[value['oid']]
        oid = found[0].commit(files, revision)
        self.reply(200, {'commitUrl': f'{self.hub.url}/{name}/commit/{oid}', 'commitOid': oid, 'pullRequestUrl': None})

    def resolve(self, body: bytes, name: str, revision: str, file: str) -> None:
        found = self.find(name, revision)
        if not found:
            return
        repo, oid = found
        headers = {'X-Repo-Commit': oid, 'Accept-Ranges': 'bytes'}
        if file not in repo.commits[oid]:
            return self.reply(404, b'', {**headers, 'X-Error-Code': 'EntryNotFound', 'X-Error-Message': 'not found'})
        data = repo.commits[oid][file]
        headers['ETag'] = f'"{etag_of(file, data)}"'
        if self.hub.xet is not None and file.endswith('.safetensors'):
            headers['X-Xet-Hash'] = etag_of(file, data)
            headers['X-Xet-Refresh-Route'] = f'{self.hub.url}/api/models/{name}/xet-read-token/{oid}'
        if self.command == 'HEAD':
            return self.reply(200, data, headers)
        fault = self.hub.fault
        if fault.flip:
            fault.flip -= 1
            middle = len(data) // 2
            data = data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        status = 200
        if match := re.fullmatch(r'bytes=(\d+)-', self.headers.get('Range') or ''):
            status = 206
            headers['Content-Range'] = f'bytes {match[1]}-{len(data) - 1}/{len(data)}'
            data = data[int(match[1]) :]
        if not fault.cut:
            return self.reply(status, data, headers)
        fault.cut -= 1
        self.reply(status, data[: len(data) // 2], {**headers, 'Content-Length': str(len(data))})
        self.wfile.flush()
        self.close_connection = True
        self.connection.shutdown(2)
