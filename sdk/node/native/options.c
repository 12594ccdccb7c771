/* options.c - made by `make abi` from src: options of JavaScript as structs of the header. */
#include "addon.h"

void lend_sandbox_options(napi_env env, struct lent *lent, napi_value from, msb_sandbox_options *to)
{
    to->flags = (uint32_t)field(env, from, "flags");
    to->name = lend(env, lent, from, "name", NULL);
    to->image = lend(env, lent, from, "image", NULL);
    to->driver = lend(env, lent, from, "driver", NULL);
    to->workdir = lend(env, lent, from, "workdir", NULL);
    to->shell = lend(env, lent, from, "shell", NULL);
    to->user = lend(env, lent, from, "user", NULL);
    to->hostname = lend(env, lent, from, "hostname", NULL);
    to->env = lend_all(env, lent, from, "env", &to->env_len);
    to->labels = lend_all(env, lent, from, "labels", &to->labels_len);
    to->cpus = real(env, from, "cpus");
    to->memory_mib = (uint32_t)field(env, from, "memoryMib");
    to->pids_limit = (uint32_t)field(env, from, "pidsLimit");
    to->max_duration_ms = field(env, from, "maxDurationMs");
    to->idle_timeout_ms = field(env, from, "idleTimeoutMs");
    to->boot_timeout_ms = field(env, from, "bootTimeoutMs");
    to->log_max_bytes = field(env, from, "logMaxBytes");
    to->log_files = (uint32_t)field(env, from, "logFiles");
    to->pull_policy = (uint32_t)field(env, from, "pullPolicy");
    to->security = (uint32_t)field(env, from, "security");
    to->disk_mib = field(env, from, "diskMib");
    to->entrypoint = lend_all(env, lent, from, "entrypoint", &to->entrypoint_len);
    to->stop_signal = lend(env, lent, from, "stopSignal", NULL);
    to->shm_size = field(env, from, "shmSize");
    to->platform = lend(env, lent, from, "platform", NULL);
    to->mounts = lend_mounts(env, lent, from, &to->mounts_len);
}

void lend_exec_options(napi_env env, struct lent *lent, napi_value from, msb_exec_options *to)
{
    to->flags = (uint32_t)field(env, from, "flags");
    to->cmd = lend(env, lent, from, "cmd", NULL);
    to->args = lend_all(env, lent, from, "args", &to->args_len);
    to->env = lend_all(env, lent, from, "env", &to->env_len);
    to->cwd = lend(env, lent, from, "cwd", NULL);
    to->user = lend(env, lent, from, "user", NULL);
    to->stdin_data = (const uint8_t *)lend(env, lent, from, "stdinData", &to->stdin_len);
    to->rlimits = lend_rlimits(env, lent, from, &to->rlimits_len);
    to->timeout_ns = field(env, from, "timeoutNs");
    to->drain_ns = field(env, from, "drainNs");
    to->rows = (uint16_t)field(env, from, "rows");
    to->cols = (uint16_t)field(env, from, "cols");
    to->max_output = field(env, from, "maxOutput");
}
