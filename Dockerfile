# docker build --tag bevia-fast . && docker run --rm --read-only --tmpfs /tmp --user "$(id -u)" --volume "$PWD:/work" bevia-fast
FROM python:3.13-slim
WORKDIR /src
COPY setup.cfg pyproject.toml README.md LICENSE ./
COPY bevia_fast bevia_fast
COPY kernels kernels
COPY docs/playbook docs/playbook
RUN pip install --no-cache-dir .
ENV HOME=/tmp
WORKDIR /work
USER 1000
ENTRYPOINT ["bevia-fast"]
CMD ["train"]
