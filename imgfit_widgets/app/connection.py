"""The connection between a page and its kernel, without the wait that small messages suffer.

Where a large message (a map) is followed by a small one (show that map), Nagle's algorithm holds
the small one back until the browser has acknowledged the large one, which it delays by 40 ms.
"""

from __future__ import annotations

from typing import Any

from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection


class PromptConnection(ZMQChannelsWebsocketConnection):
    """The usual connection, with every message sent at once.

    Named in the setting ``kernel_websocket_connection_class`` of Voila and of Jupyter servers.
    """

    def connect(self) -> Any:
        """Connect the page with its kernel."""
        self.websocket_handler.set_nodelay(True)
        return super().connect()
