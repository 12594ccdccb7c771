/* test_images.c - promises G and I: pulling, importing, listing and removing images, and creating
 * sandboxes from them. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* An archive of the test's root filesystem, created once. */
static const char *archive(void)
{
    static char path[512];
    char command[2048];

    if (!path[0]) {
        snprintf(path, sizeof path, "%s/rootfs.tar.gz", getenv("MSB_HOME"));
        snprintf(command, sizeof command, "tar -C '%s' -czf '%s' .", getenv("MSB_TEST_ROOTFS"),
                 path);
        CHECK_INT(system(command), 0);
    }
    return path;
}

/* Reads all progress, and checks that it never goes back. */
static int steps_of(msb_image *image)
{
    msb_progress progress = MSB_PROGRESS_INIT;
    uint32_t phase = 0;
    int steps = 0;
    msb_status status;

    while ((status = msb_image_progress(image, 60000, &progress, &err)) == MSB_OK) {
        CHECK_INT(progress.struct_size, sizeof progress);
        CHECK(progress.phase >= phase && progress.phase <= MSB_PHASE_STARTING);
        CHECK(progress.bytes <= progress.bytes_total && progress.layers_done <= progress.layers);
        phase = progress.phase;
        steps++;
    }
    CHECK_INT(status, MSB_EOF);
    CHECK_STATUS(msb_image_progress(image, -1, &progress, &err), MSB_EOF);
    return steps;
}

/* Imports the archive under a name. */
static void import(const char *name)
{
    msb_image *image = NULL;
    msb_image_entries list = MSB_IMAGE_ENTRIES_INIT;
    int32_t fd = -1;

    CHECK_OK(msb_image_import(archive(), name, &image, &err));
    CHECK_OK(msb_handle_fd(image, &fd, &err));
    CHECK(steps_of(image) > 0);
    CHECK_OK(msb_image_wait(image, 60000, &list, &err));
    CHECK(readable(fd, 0));
    CHECK_INT(list.len, 1);
    CHECK_TEXT(list.entries[0]->names[0], name);
    msb_image_entries_release(&list);
    /* A repeated call returns the same. */
    CHECK_OK(msb_image_wait(image, 0, &list, &err));
    CHECK_INT(list.entries[0]->layers, 1);
    msb_image_entries_release(&list);
    CHECK_INT(msb_handle_close(image), MSB_OK);
}

TEST(test_g_an_image_is_imported_listed_used_and_removed)
{
    msb_image_entries list = MSB_IMAGE_ENTRIES_INIT;
    msb_sandbox_entries info = MSB_SANDBOX_ENTRIES_INIT;
    msb_sandbox_options options = sandbox_named("of-image");
    msb_progress progress = MSB_PROGRESS_INIT;
    msb_sandbox *sandbox = NULL;
    uint64_t freed = 0;
    char path[600];

    import("test/image:1");
    CHECK_OK(msb_image_list(&list, &err));
    CHECK_INT(list.len, 1);
    CHECK_INT(list.entries[0]->struct_size, sizeof *list.entries[0]);
    CHECK(list.entries[0]->size > 100000 && list.entries[0]->download_size > 10000);
    CHECK(!strncmp(list.entries[0]->id, "sha256:", 7) && !list.entries[0]->used_by_len);
    snprintf(path, sizeof path, "%s/bin/busybox", list.entries[0]->rootfs);
    CHECK_INT(access(path, X_OK), 0);
    msb_image_entries_release(&list);
    CHECK(!list.entries && !list.len);

    options.image = "test/image:1";
    options.pull_policy = MSB_PULL_NEVER;
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_OK(msb_sandbox_progress(sandbox, 60000, &progress, &err));
    CHECK_INT(progress.phase, MSB_PHASE_STARTING);
    CHECK_STATUS(msb_sandbox_progress(sandbox, 60000, &progress, &err), MSB_EOF);
    CHECK_OK(msb_sandbox_wait_ready(sandbox, 0, &err));
    CHECK_TEXT(sh_in(sandbox, "echo from an image"), "from an image\n");
    CHECK_OK(msb_sandbox_info(sandbox, &info, &err));
    CHECK_TEXT(info.entries[0]->image, "test/image:1");
    CHECK_INT(info.entries[0]->command_len, 0);
    msb_sandbox_entries_release(&info);

    CHECK_STATUS(msb_image_remove("test/image:1", 0, &err), MSB_E_IMAGE_IN_USE);
    CHECK(strstr(err.message, "of-image"));
    CHECK_OK(msb_image_prune(MSB_PRUNE_ALL, &freed, &err));
    CHECK_OK(msb_image_list(&list, &err));
    CHECK_INT(list.len, 1);
    CHECK_TEXT(list.entries[0]->used_by[0], "of-image");
    msb_image_entries_release(&list);
    sandbox_end(sandbox, "of-image");
    CHECK_OK(msb_image_prune(MSB_PRUNE_ALL, &freed, &err));
    CHECK(freed > 100000);
    CHECK_STATUS(msb_image_remove("test/image:1", 0, &err), MSB_E_NO_IMAGE);
    CHECK_OK(msb_image_list(&list, &err));
    CHECK_INT(list.len, 0);
    msb_image_entries_release(&list);
}

TEST(test_g_an_archive_is_an_image_and_its_progress_can_be_read)
{
    msb_sandbox_options options = sandbox_named("of-archive");
    msb_progress progress = MSB_PROGRESS_INIT;
    msb_sandbox *sandbox = NULL;
    bool unpacked = false;
    msb_status status;

    options.image = archive();
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    while ((status = msb_sandbox_progress(sandbox, 60000, &progress, &err)) == MSB_OK)
        unpacked = unpacked || progress.phase == MSB_PHASE_UNPACKING;
    CHECK_INT(status, MSB_EOF);
    CHECK(unpacked);
    CHECK_OK(msb_sandbox_wait_ready(sandbox, 0, &err));
    CHECK_TEXT(sh_in(sandbox, "echo it runs"), "it runs\n");
    sandbox_end(sandbox, "of-archive");
    CHECK_OK(msb_image_prune(MSB_PRUNE_ALL, NULL, &err));
}

TEST(test_g_unavailable_images_report_the_reason)
{
    msb_image *image = NULL;
    msb_image_entries list = MSB_IMAGE_ENTRIES_INIT;
    msb_sandbox_options options = sandbox_named("none");
    msb_sandbox *sandbox = NULL;

    /* No server listens on the discard port of this machine. */
    CHECK_OK(msb_image_pull("127.0.0.1:9/none", &image, &err));
    CHECK_STATUS(msb_image_wait(image, 60000, &list, &err), MSB_E_REGISTRY);
    CHECK(strstr(err.message, "127.0.0.1:9"));
    CHECK_STATUS(msb_image_wait(image, 0, &list, &err), MSB_E_REGISTRY);
    CHECK_INT(msb_handle_close(image), MSB_OK);
    CHECK_STATUS(msb_image_wait(image, 0, &list, &err), MSB_E_HANDLE);
    image = NULL;
    CHECK_STATUS(msb_image_pull("No Name", &image, &err), MSB_E_CONFIG);
    CHECK_STATUS(msb_image_import("./none/such", NULL, &image, &err), MSB_E_CONFIG);
    CHECK_STATUS(msb_image_load_platform(NULL, "a", "vax", &image, &err), MSB_E_CONFIG);
    CHECK(strstr(err.message, "\"vax\""));
    CHECK(!image && !list.owner);
    options.image = "test/none:1";
    options.pull_policy = MSB_PULL_NEVER;
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, 60000, &err), MSB_E_NO_IMAGE);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

static void *close_later(void *handle)
{
    sleep_ms(100);
    CHECK_INT(msb_handle_close(handle), MSB_OK);
    return NULL;
}

/* An archive that never arrives. */
static const char *never(void)
{
    static char path[512];

    snprintf(path, sizeof path, "%s/never.tar", getenv("MSB_HOME"));
    CHECK_INT(mkfifo(path, 0600), 0);
    return path;
}

TEST(test_g_closing_an_image_cancels_it_and_wakes_waiters)
{
    msb_image *image = NULL;
    msb_image_entries list = MSB_IMAGE_ENTRIES_INIT;
    const char *fifo = never();
    helper thread;

    CHECK_OK(msb_image_import(fifo, NULL, &image, &err));
    CHECK_STATUS(msb_image_wait(image, 0, &list, &err), MSB_AGAIN);
    thread = helper_start(close_later, image);
    CHECK_STATUS(msb_image_wait(image, -1, &list, &err), MSB_E_CLOSED);
    helper_join(thread);
    CHECK_INT(unlink(fifo), 0);
    /* The store is unlocked, or this would never return. */
    CHECK_OK(msb_image_prune(0, NULL, &err));
}

TEST(test_g_creation_is_cancelled_during_the_pull)
{
    msb_sandbox_options options = sandbox_named("given-up");
    msb_sandbox *sandbox = NULL;
    const char *fifo = never();

    options.image = fifo;
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, 0, &err), MSB_AGAIN);
    /* Killing a pending sandbox cancels its creation. */
    CHECK_STATUS(msb_sandbox_kill(sandbox, &err), MSB_E_CLOSED);
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, 0, &err), MSB_E_CLOSED);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
    /* The store is unlocked, or this would never return. */
    CHECK_OK(msb_image_prune(0, NULL, &err));
    CHECK_INT(unlink(fifo), 0);
    CHECK_OK(msb_sandbox_open("given-up", 0, &sandbox, &err));
    CHECK_STATUS(msb_sandbox_wait_ready(sandbox, -1, &err), MSB_E_NOT_FOUND);
    CHECK_INT(msb_handle_close(sandbox), MSB_OK);
}

TEST(test_g_descriptor_signals_progress_once_it_is_read)
{
    msb_sandbox_options options = sandbox_named("of-news");
    msb_progress progress = MSB_PROGRESS_INIT;
    msb_sandbox *sandbox = NULL;
    msb_status status = MSB_AGAIN;
    int32_t fd = -1;
    int steps = 0;

    options.image = archive();
    CHECK_OK(msb_sandbox_create(&options, &sandbox, &err));
    CHECK_OK(msb_handle_fd(sandbox, &fd, &err));
    while (status == MSB_AGAIN) {
        while ((status = msb_sandbox_progress(sandbox, 0, &progress, &err)) == MSB_OK)
            steps++;
        if (status != MSB_EOF)
            CHECK(readable(fd, 60000));
    }
    CHECK_INT(status, MSB_EOF);
    CHECK(steps > 0);
    CHECK_OK(msb_sandbox_wait_ready(sandbox, 0, &err));
    /* Unread progress does not wake a caller that waits for the end. */
    CHECK_STATUS(msb_sandbox_wait(sandbox, 0, &err), MSB_AGAIN);
    CHECK(!readable(fd, 0));
    sandbox_end(sandbox, "of-news");
    CHECK_OK(msb_image_prune(MSB_PRUNE_ALL, NULL, &err));
}

TEST(test_i_invalid_image_calls_are_refused)
{
    msb_image *image = NULL;
    msb_image_entries list = MSB_IMAGE_ENTRIES_INIT;
    msb_progress progress = MSB_PROGRESS_INIT;
    msb_sandbox_options options = sandbox_named("policy");
    msb_sandbox *sandbox = NULL;
    void *forged[] = {NULL, (void *)1, (void *)UINTPTR_MAX, &list};

    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        CHECK_STATUS(msb_image_wait(forged[i], 0, &list, &err), MSB_E_HANDLE);
        CHECK_STATUS(msb_image_progress(forged[i], 0, &progress, &err), MSB_E_HANDLE);
        CHECK_STATUS(msb_sandbox_progress(forged[i], 0, &progress, &err), MSB_E_HANDLE);
    }
    CHECK_STATUS(msb_image_wait((void *)shared(), 0, &list, &err), MSB_E_HANDLE);
    CHECK_STATUS(msb_image_pull(NULL, &image, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_pull("a", NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_import(NULL, NULL, &image, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_import("/", NULL, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_load_platform(NULL, NULL, "linux/arm64", &image, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_load_platform(NULL, "a", NULL, &image, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_load_platform("/", NULL, "linux/arm64", NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_list(NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_remove(NULL, 0, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_remove("a", 4, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_image_prune(4, NULL, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_sandbox_progress(shared(), 0, NULL, &err), MSB_E_INVALID);
    progress.struct_size = 3;
    CHECK_STATUS(msb_sandbox_progress(shared(), 0, &progress, &err), MSB_E_INVALID);
    options.pull_policy = 3;
    CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
    options.pull_policy = 0;
    options.security = 2;
    CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
    CHECK(!image && !sandbox && !list.owner);
    msb_image_entries_release(NULL);
    CHECK_INT(msb_has("images"), 1);
}
