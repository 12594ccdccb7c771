/* test_mounts.c - promises L1 and L2: mounts of the host, and volumes. */
#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static msb_mount mount_of(uint32_t kind, const char *target, const char *source)
{
    msb_mount mount = MSB_MOUNT_INIT;

    mount.kind = kind;
    mount.target = target;
    mount.source = source;
    return mount;
}

TEST(l1_bad_mounts_are_refused)
{
    msb_sandbox_options options = sandbox_named("c-bad-mount");
    msb_sandbox *sandbox = NULL;
    msb_mount mounts[2] = {mount_of(MSB_MOUNT_TMPFS, "/t", NULL),
                           mount_of(MSB_MOUNT_BIND, "/data", "/")};

    options.mounts = mounts;
    options.mounts_len = 2;
    mounts[1].kind = 99;
    CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
    mounts[1].kind = MSB_MOUNT_BIND;
    mounts[1].flags = 1u << 31;
    CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
    mounts[1].flags = 0;
    mounts[1].source = NULL;
    CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
    mounts[1].struct_size = 0;
    CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
    options.mounts = NULL;
    CHECK_STATUS(msb_sandbox_create(&options, &sandbox, &err), MSB_E_INVALID);
}

TEST(l2_volume_is_created_listed_and_removed)
{
    msb_volume_options options = MSB_VOLUME_OPTIONS_INIT;
    msb_volume_entries list = MSB_VOLUME_ENTRIES_INIT;
    const char *labels[1] = {"team=a"};

    options.name = "c-volume";
    options.quota_mib = 64;
    options.labels = labels;
    options.labels_len = 1;
    CHECK_STATUS(msb_volume_create(&options, &err), MSB_OK);
    CHECK_STATUS(msb_volume_create(&options, &err), MSB_E_VOLUME_EXISTS);
    CHECK_STATUS(msb_volume_get("c-volume", &list, &err), MSB_OK);
    CHECK_INT(list.len, 1);
    CHECK_INT(list.entries[0]->quota_mib, 64);
    CHECK(strcmp(list.entries[0]->labels[0], "team=a") == 0);
    msb_volume_entries_release(&list);
    CHECK_STATUS(msb_volume_list(&list, &err), MSB_OK);
    CHECK_INT(list.len, 1);
    msb_volume_entries_release(&list);
    CHECK_STATUS(msb_volume_remove("c-volume", &err), MSB_OK);
    CHECK_STATUS(msb_volume_remove("c-volume", &err), MSB_E_NO_VOLUME);
    CHECK_STATUS(msb_volume_get(NULL, &list, &err), MSB_E_INVALID);
    CHECK_STATUS(msb_volume_create(NULL, &err), MSB_E_INVALID);
}
