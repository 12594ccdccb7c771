/* images.c - image pulls and imports; jobs query the store. */
#include "addon.h"

static napi_value image_value(napi_env env, const msb_image_entry *entry)
{
    napi_value value = object(env);

    set(env, value, "id", text(env, entry->id));
    set(env, value, "names", texts(env, entry->names, entry->names_len));
    set(env, value, "digests", texts(env, entry->digests, entry->digests_len));
    set(env, value, "architecture", text(env, entry->architecture));
    set(env, value, "layers", number(env, entry->layers));
    set(env, value, "size", number(env, (double)entry->size));
    set(env, value, "downloadSize", number(env, (double)entry->download_size));
    set(env, value, "added", number(env, (double)entry->added_ms));
    set(env, value, "rootfs", text(env, entry->rootfs));
    set(env, value, "env", texts(env, entry->env, entry->env_len));
    set(env, value, "workdir", text(env, entry->workdir));
    set(env, value, "user", text(env, entry->user));
    set(env, value, "entrypoint", texts(env, entry->entrypoint, entry->entrypoint_len));
    set(env, value, "cmd", texts(env, entry->cmd, entry->cmd_len));
    set(env, value, "usedBy", texts(env, entry->used_by, entry->used_by_len));
    return value;
}

napi_value images_value(napi_env env, const msb_image_entries *list)
{
    napi_value value = NULL;

    MUST(napi_create_array_with_length(env, list->len, &value));
    for (size_t at = 0; at < list->len; at++)
        MUST(napi_set_element(env, value, (uint32_t)at, image_value(env, list->entries[at])));
    return value;
}

/* imagePull({name, platform or undefined}) */
static napi_value image_pull(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    struct lent lent = {NULL};
    msb_image *image = NULL;
    napi_value from = NULL;
    const char *name, *platform;
    msb_status status;

    arguments(env, info, 1, &from);
    name = lend(env, &lent, from, "name", NULL);
    platform = lend(env, &lent, from, "platform", NULL);
    status = platform ? msb_image_load_platform(NULL, name, platform, &image, &err)
                      : msb_image_pull(name, &image, &err);
    lent_release(&lent);
    return failed(env, status, &err) ? NULL : cell_value(env, image);
}

/* imageImport({path, name or undefined, platform or undefined}) */
static napi_value image_import(napi_env env, napi_callback_info info)
{
    msb_error err = MSB_ERROR_INIT;
    struct lent lent = {NULL};
    msb_image *image = NULL;
    napi_value from = NULL;
    const char *path, *name, *platform;
    msb_status status;

    arguments(env, info, 1, &from);
    path = lend(env, &lent, from, "path", NULL);
    name = lend(env, &lent, from, "name", NULL);
    platform = lend(env, &lent, from, "platform", NULL);
    status = platform ? msb_image_load_platform(path, name, platform, &image, &err)
                      : msb_image_import(path, name, &image, &err);
    lent_release(&lent);
    return failed(env, status, &err) ? NULL : cell_value(env, image);
}

/* imageWait(image): its description, undefined while in progress. */
static napi_value image_wait(napi_env env, napi_callback_info info)
{
    msb_image_entries list = MSB_IMAGE_ENTRIES_INIT;
    msb_error err = MSB_ERROR_INIT;
    napi_value image = NULL, value;
    msb_status status;

    arguments(env, info, 1, &image);
    status = msb_image_wait(to_cell(env, image)->handle, 0, &list, &err);
    if (failed(env, status, &err))
        return NULL;
    value = status == MSB_OK ? image_value(env, list.entries[0]) : undefined(env);
    msb_image_entries_release(&list);
    return value;
}

/* Returns new progress, undefined if there is none. */
static napi_value progress_value(napi_env env, msb_status status, const msb_progress *progress,
                                 const msb_error *err)
{
    napi_value value;

    if (failed(env, status, err))
        return NULL;
    if (status != MSB_OK)
        return undefined(env);
    value = object(env);
    set(env, value, "phase", number(env, progress->phase));
    set(env, value, "layers", number(env, progress->layers));
    set(env, value, "layersDone", number(env, progress->layers_done));
    set(env, value, "bytes", number(env, (double)progress->bytes));
    set(env, value, "bytesTotal", number(env, (double)progress->bytes_total));
    return value;
}

static napi_value image_progress(napi_env env, napi_callback_info info)
{
    msb_progress progress = MSB_PROGRESS_INIT;
    msb_error err = MSB_ERROR_INIT;
    napi_value image = NULL;
    msb_status status;

    arguments(env, info, 1, &image);
    status = msb_image_progress(to_cell(env, image)->handle, 0, &progress, &err);
    return progress_value(env, status, &progress, &err);
}

static napi_value sandbox_progress(napi_env env, napi_callback_info info)
{
    msb_progress progress = MSB_PROGRESS_INIT;
    msb_error err = MSB_ERROR_INIT;
    napi_value sandbox = NULL;
    msb_status status;

    arguments(env, info, 1, &sandbox);
    status = msb_sandbox_progress(to_cell(env, sandbox)->handle, 0, &progress, &err);
    return progress_value(env, status, &progress, &err);
}

const napi_property_descriptor image_functions[] = {
    FUNCTION("imagePull", image_pull),
    FUNCTION("imageImport", image_import),
    FUNCTION("imageWait", image_wait),
    FUNCTION("imageProgress", image_progress),
    FUNCTION("sandboxProgress", sandbox_progress),
};
const size_t image_functions_len = sizeof image_functions / sizeof *image_functions;
