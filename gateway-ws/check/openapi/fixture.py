"""What the operations of the document work on: users, conversations and messages, and one good request for each.

Every operation has a conversation of its own, so that one which deletes or removes spoils nothing for the others.
"""

import shlex
import subprocess

import requests

OWNER, OTHER, LEAVER, SERVICE, ADMIN = "api-owner", "api-other", "api-leaver", "api-service", "api-admin"
OPTIONS = {SERVICE: ["--service", "--scope", "act_as", "--grant", "c:*=read,manage"],
           ADMIN: ["--service", "--scope", "admin:write"]}
# Who asks, where it is not the owner.
ASKED_BY = {"join": OTHER, "leave": LEAVER, "import": SERVICE, "revoke": ADMIN}
MESSAGES = 5


class Fixture:
    def __init__(self, url, token_command):
        self.url, self.command = url, token_command
        self.tokens = {user: self._token(user) for user in (OWNER, OTHER, LEAVER, SERVICE, ADMIN)}
        self.sent = {}

    def _token(self, user):
        words = [word.replace("{user}", user) for word in shlex.split(self.command)]
        return subprocess.run([*words, *OPTIONS.get(user, [])], check=True, capture_output=True, text=True).stdout.strip()

    def headers(self, operation):
        return {"Authorization": f"Bearer {self.tokens[ASKED_BY.get(operation, OWNER)]}"}

    def _made(self, path, body):
        answer = requests.post(f"{self.url}/api/v1{path}", json=body, headers=self.headers(""), timeout=10)
        answer.raise_for_status()
        return answer.json()

    def prepare(self, operation):
        """The operation's own conversation, with members and messages."""
        name = f"api-{operation}"
        members = [{"user": LEAVER}, {"user": "api-member"}] + ([] if operation == "join" else [{"user": OTHER}])
        self._made("/conversations", {"conversation": name, "title": "an example", "join_policy": "open", "members": members})
        self.sent[operation] = [self._made(f"/logs/c:{name}/events", {"text": f"message {n}"}) for n in range(MESSAGES)]

    def path(self, operation):
        """Values of the path's parameters, by their names."""
        name = f"api-{operation}"
        user = {"revoke": "api-revoked", "block": "api-blocked", "presence_get": OTHER}.get(operation, "api-member")
        return {"conversation": name, "log": f"c:{name}", "user": user}

    def body(self, operation):
        """A good body; None where the operation has none."""
        name = f"api-{operation}"
        first = self.sent[operation][0]
        seq = int(first["position"].split("-")[1])
        return {
            "conversation_create": {"conversation": "api-created", "title": "created"},
            "conversation_update": {"title": "changed"},
            "member_add": {"members": [{"user": "api-added", "role": "admin"}]},
            "member_set_role": {"role": "admin"},
            "preferences": {"pinned": True},
            "send": {"text": "an answer", "reply_to": {"seq": seq, "event_id": first["event_id"]}},
            "cursor": {"read": seq},
            "signal": {"kind": "typing", "data": "AQ"},
            "hide": {"seq": seq, "event_id": first["event_id"]},
            "block": {"blocked": True},
            "presence_set": {"status": "away", "text": "at tea"},
            "import": {"records": [{"log": f"c:{name}", "time_ms": 1_234_567_890_000, "external_id": "1", "text": "old"}]},
            "ticket_create": {"log": f"c:{name}"},
        }.get(operation)
