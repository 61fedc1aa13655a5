# The gate in a container: built in one, run in a small one without a shell.
#
#   docker build -t oncegate .
#   docker run -p 80:8080 -v ./oncegate.toml:/etc/oncegate/config.toml:ro -v oncegate:/var/lib/oncegate oncegate
#
# In there the configuration listens on [::]:8080, since it does not run as root, and `admin.listen` is 127.0.0.1:9090 unless
# a Prometheus outside of the container is to read it. docker stop waits ten seconds by itself: say `--stop-timeout 40`.

FROM docker.io/library/rust:1-slim-bookworm AS build
WORKDIR /build
# What the program is made of, and nothing else, so that a changed test or paper builds nothing anew.
COPY Cargo.toml Cargo.lock config.toml ./
COPY benches benches
COPY src src
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin oncegate \
 && install -D -m 755 target/release/oncegate /image/usr/bin/oncegate \
 && install -d -m 755 /image/etc/oncegate \
 && install -d -m 700 -o 65532 -g 65532 /image/var/lib/oncegate

# The C library and the certificates of the authorities; no shell, no package manager.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /image /
# What it keeps lies here: `store.path` is taken from here on. Put a volume in its place, or it is gone with the container.
WORKDIR /var/lib/oncegate
USER 65532:65532
EXPOSE 8080 9090
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/bin/oncegate", "--config", "/etc/oncegate/config.toml", "health"]
ENTRYPOINT ["/usr/bin/oncegate", "--config", "/etc/oncegate/config.toml"]
CMD ["run"]
