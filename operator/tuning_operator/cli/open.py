"""`tuningstudy open`: a study's page in the browser, also where its link works only inside of the cluster."""

import webbrowser

from tuning_operator.cli.terminal import say
from tuning_operator.remote.charts import link_of, service_of
from tuning_operator.remote.gateway import Gateway
from tuning_operator.remote.links import page_path
from tuning_operator.remote.relay import Relay


def open_page(gateway: Gateway, name: str, *, operator_namespace: str | None, with_browser: bool) -> int:
    """Open a study's page; where its link leads nowhere from here, keep a way to it open until Ctrl-C.

    Raises:
        BadInputError: it has no page yet.
    """
    link = link_of(gateway.study(name))
    service = service_of(gateway, link, operator_namespace=operator_namespace)
    if service is None:
        _show(link, with_browser=with_browser)
        return 0
    with Relay(gateway, service) as relay:
        _show(relay.url + page_path(link), with_browser=with_browser)
        say("by the API server, for as long as this runs; Ctrl-C ends it", err=True)
        try:
            relay.serve_forever()
        except KeyboardInterrupt:
            say("", err=True)
    return 0


def _show(link: str, *, with_browser: bool) -> None:
    say(link)
    if with_browser and not webbrowser.open(link):
        say("there is no browser here: open the link in one", err=True)
