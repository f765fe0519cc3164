# viacheck in a container. It judges the host around the container, and changes nothing there (docs/install.md):
#
#   viacheck pack && docker build --tag viacheck .
#
# No step needs a network once the base image is there. The base is a Debian slim with Python 3.11 or newer and nothing
# else: every other program that a run needs is the host's own.
ARG BASE=python:3.13-slim-trixie
FROM ${BASE}
COPY viacheck.pyz /usr/local/lib/
ENV VIACHECK_CONTAINER=1 XDG_CACHE_HOME=/var/cache
RUN ["sh", "/usr/local/lib/viacheck.pyz", "--version"]
ENTRYPOINT ["sh", "/usr/local/lib/viacheck.pyz"]
