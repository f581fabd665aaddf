# The images that `cargo xtask image` writes without a container engine, for those who have one:
#   docker build --build-arg PACKAGE=podid-nmi -t podid-nmi .
# PACKAGE is podid-nmi, podid-controller, podid-demo or podid-cli (whose program is podid: --build-arg PROGRAM=podid).
FROM rust:1.95.0-alpine AS build
RUN apk add --no-cache musl-dev ca-certificates
WORKDIR /src
COPY . .
ARG PACKAGE=podid-nmi
ARG PROGRAM=${PACKAGE}
RUN cargo build --locked --profile dist --package ${PACKAGE} --bins \
    && install -Ds target/dist/${PROGRAM} /out/program \
    && install -d -m 1777 /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/program /program
COPY --from=build /out/tmp /tmp
ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
LABEL org.opencontainers.image.licenses=Apache-2.0
# The agent's pod sets user 0; nothing else needs it.
USER 65532:65532
ENTRYPOINT ["/program"]
