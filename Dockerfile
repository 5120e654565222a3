# Sidegate in a container, as nobody in particular. The image was NEVER BUILT, for want of a registry; what it does was tried with the
# binary, its three libraries and these settings in a root of their own, as user 65532 and process 1.
#
#   docker build -t sidegate .
#   docker run -p 127.0.0.1:8090:8090 -v "$PWD/sidegate:/config" sidegate
#
# /config holds config.yaml and mcpservers/, and must be writable for user 65532: a token is made there (/config/token), which
# clients send, as a container listens on all of its addresses. There is no shell and no interpreter in it: it serves
# remote servers. For stdio servers copy /usr/bin/sidegate into an image that has what they need.
FROM rust:1.95-trixie AS build
WORKDIR /source
COPY . .
RUN cargo build --locked --release

FROM gcr.io/distroless/cc-debian13:nonroot
COPY --from=build /source/target/release/sidegate /usr/bin/sidegate
ENV SIDEGATE_CONFIG_DIR=/config \
    SIDEGATE_RUNTIME_DIR=/tmp/sidegate \
    SIDEGATE_LISTEN=0.0.0.0:8090 \
    SIDEGATE_AGGREGATOR_TOKEN_FILE=/config/token
EXPOSE 8090
VOLUME /config
ENTRYPOINT ["/usr/bin/sidegate"]
CMD ["serve", "--log-format", "json"]
