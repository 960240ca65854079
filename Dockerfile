# A local Azure IoT Hub: docker build -t local-iot-hub . (docs/deploying.md)

# The wheel and its dependencies, in an environment that is copied as a whole.
FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY emulator emulator
RUN python -m venv /opt/iothub && /opt/iothub/bin/pip install --no-cache-dir .

FROM python:3.13-slim
COPY --from=build /opt/iothub /opt/iothub
# A volume that is new takes over the owner and the mode of this folder.
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin iothub \
    && install -d -o iothub -g iothub -m 0700 /data
# The first name stands in the connection strings: that of the service in compose.yaml.
ENV PATH="/opt/iothub/bin:$PATH" \
    IOTHUB_EMULATOR_HOST="0.0.0.0" \
    IOTHUB_EMULATOR_NAME="iothub localhost" \
    IOTHUB_EMULATOR_DATA_DIR="/data" \
    IOTHUB_EMULATOR_HTTP_PORT="8080"
USER 10001
VOLUME /data
EXPOSE 443 5671 8080 8443 8883
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; hub = http.client.HTTPConnection('127.0.0.1', int(os.environ['IOTHUB_EMULATOR_HTTP_PORT']), timeout=3); hub.request('GET', '/_emulator/health'); sys.exit(hub.getresponse().status != 200)"]
ENTRYPOINT ["iothub-emulator"]
