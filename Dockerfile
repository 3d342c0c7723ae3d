# The daemons in an image, for deploy/compose.yml: docs/operate/container.md says what that takes and what it costs.
#
# The build context is the folder of packages, so that the image holds what was tested:
#   cargo xtask dist --out dist
#   docker build --tag aion --file Dockerfile --build-arg PACKAGE=aion_0.1.0-1_amd64.deb dist
FROM debian:bookworm-slim

ARG PACKAGE

# Fixed numbers: the state outlives the image, and belongs to this user.
RUN groupadd --system --gid 970 aion \
    && useradd --system --uid 970 --gid aion --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin aion

# Agents see this image's /usr: what they are to run on belongs here.
# hadolint ignore=DL3008
RUN --mount=type=bind,target=/packages \
    apt-get update \
    && apt-get install --yes --no-install-recommends "/packages/${PACKAGE}" ca-certificates iproute2 procps python3 \
    && rm -rf /var/lib/apt/lists/*

ENV AION_SOCKET=/var/lib/aion/run/aion.sock
VOLUME /var/lib/aion
STOPSIGNAL SIGTERM

# The image serves both daemons; this asks aiond, over the socket that both containers share.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s CMD ["aionctl", "ps"]

CMD ["aiond"]
