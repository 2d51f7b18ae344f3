"""A token with which a step proves its identity to Google, printed as google-auth reads it.

google-auth runs this program, because `k8s/overlays/gke/credentials.json` names it. The program asks the API server for
a token of the account `previts-download`, for the audience that google-auth passes on. So the token of the pod's own
account, with its rights in Kubernetes, stays in the cluster.
"""

import json
import os
from pathlib import Path

from kubernetes import client, config

ACCOUNT = "previts-download"
AUDIENCE = "GOOGLE_EXTERNAL_ACCOUNT_AUDIENCE"  # google-auth sets it to the `audience` of the credentials
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
SECONDS = 3600


def response(api: client.ApiClient, namespace: str, audience: str) -> dict[str, object]:
    """Ask for a token and return it in the format of google-auth's executables.

    Args:
        api: Connection to the API server. Its account needs the right to create tokens of `ACCOUNT`.
        namespace: Namespace of the account.
        audience: The only service that shall accept the token, as `//host/path`.

    Returns:
        The answer for google-auth: the token and when it expires, or the reason why there is none.
    """
    asked = client.AuthenticationV1TokenRequest(
        spec=client.V1TokenRequestSpec(audiences=[f"https:{audience}"], expiration_seconds=SECONDS)
    )
    try:
        status = client.CoreV1Api(api).create_namespaced_service_account_token(ACCOUNT, namespace, asked).status
    except client.ApiException as error:
        reason = f"no token of account {namespace}/{ACCOUNT}: {error.reason}; apply the manifests of k8s/overlays/gke"
        return {"version": 1, "success": False, "code": str(error.status), "message": reason}
    return {
        "version": 1,
        "success": True,
        "token_type": "urn:ietf:params:oauth:token-type:jwt",
        "id_token": status.token,
        "expiration_time": int(status.expiration_timestamp.timestamp()),
    }


if __name__ == "__main__":
    config.load_incluster_config()
    print(json.dumps(response(client.ApiClient(), NAMESPACE_FILE.read_text().strip(), os.environ[AUDIENCE])))
