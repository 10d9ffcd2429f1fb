"""The filter of system calls for ffmpeg: refuses those not needed for decoding and encoding. Pure.

A filter is a program for the kernel's packet filter: instructions of an operation, how many instructions to
pass over if a comparison holds and if not, and an operand. An operand that only the process itself knows
is a name and a shift, which the launcher fills in.

Refused calls return an error (EPERM): what tries one without need goes on. Calls of later kernels are not
there (ENOSYS). Threads are allowed, other processes are not. Reading, writing and opening are Landlock's
matter; whether a file exists, and what its name leads to, can be looked up.
"""

from typing import NamedTuple

Operand = int | tuple[str, int]
Instruction = tuple[int, int, int, Operand]


class Machine(NamedTuple):
    """An architecture: the kernel's name of it, its column in ``CALLS``, the call that sets a filter."""

    audit: int
    column: int
    seccomp: int


MACHINES = {"x86_64": Machine(0xC000003E, 0, 317), "aarch64": Machine(0xC00000B7, 1, 277)}

_LOAD, _EQUAL, _GREATER_OR_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS = 1, 38
#: Where the number, the architecture and the arguments of a call are.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
#: Numbers from here on are x86-64's other way of calling.
_X32 = 0x40000000
_CLONE_THREAD = 0x00010000
_SIGXCPU, _SIGXFSZ = 24, 25
#: The worker's death is ffmpeg's; the others make itself readable to others, forge what /proc says of it, and
#: take the processor's cores from other processes.
_PRCTL_REFUSED = (1, 0x59616D61, 35, 62)  # PR_SET_PDEATHSIG, PR_SET_PTRACER, PR_SET_MM, PR_SCHED_CORE
#: Ask for the current one, and choose the ordinary one.
_PERSONALITIES = (0xFFFFFFFF, 0)
#: Duplicating, flags, locks, the sizes of pipes. Not: who gets a signal when there is something to read
#: (F_SETOWN, F_SETSIG), which reaches any process of the same user; leases, and news of folders.
_FCNTL_ALLOWED = (
    0, 1, 2, 3, 4,  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL
    5, 6, 7, 36, 37, 38,  # F_GETLK, F_SETLK, F_SETLKW, and those of open files
    1030, 1031, 1032, 1034,  # F_DUPFD_CLOEXEC, F_SETPIPE_SZ, F_GETPIPE_SZ, F_GET_SEALS
)  # fmt: skip
#: Whether it is a terminal, whose, and how large; what is there to read; flags. Not: who gets a signal
#: (FIOSETOWN, SIOCSPGRP, FIOASYNC), input of terminals (TIOCSTI, TIOCLINUX), space of files beyond their
#: limit (FS_IOC_RESVSP and its kin), attributes of files, devices.
_IOCTL_ALLOWED = (
    0x5401, 0x802C542A, 0x540F, 0x5413,  # TCGETS, TCGETS2, TIOCGPGRP, TIOCGWINSZ
    0x541B, 0x5421, 0x5450, 0x5451,  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
)  # fmt: skip

#: Refused, by what they are for; the numbers are x86-64's and AArch64's, and -1 where there is no such call.
CALLS: dict[str, dict[str, tuple[int, int]]] = {
    "network": {
        "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "sendto": (44, 206),
        "sendmsg": (46, 211), "bind": (49, 200), "listen": (50, 201), "socketpair": (53, 199),
        "accept4": (288, 242), "sendmmsg": (307, 269),
    },
    # Does other calls without being asked again.
    "rings": {
        "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
        "io_setup": (206, 0), "io_submit": (209, 2),
    },
    "other processes": {
        "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
        "kcmp": (312, 272), "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434),
        "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "process_mrelease": (448, 448),
        "migrate_pages": (256, 238), "move_pages": (279, 239), "setpriority": (141, 140),
        "ioprio_set": (251, 30), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
        "sched_setattr": (314, 274), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
        "get_robust_list": (274, 100),
    },
    "namespaces and mounts": {
        "chroot": (161, 51), "pivot_root": (155, 41), "mount": (165, 40), "umount2": (166, 39),
        "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
        "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
        "mount_setattr": (442, 442), "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
        "statmount": (457, 457), "listmount": (458, 458), "open_tree_attr": (467, 467), "listns": (470, 470),
    },
    "the kernel's inner life": {
        "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
        "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
        "init_module": (175, 105), "delete_module": (176, 106), "finit_module": (313, 273),
        "kexec_load": (246, 104), "kexec_file_load": (320, 294), "lookup_dcookie": (212, 18),
        "modify_ldt": (154, -1), "uselib": (134, -1),
    },
    # What other processes do with files that this one may not open.
    "news of files": {
        "fanotify_init": (300, 262), "fanotify_mark": (301, 263), "inotify_init": (253, -1),
        "inotify_init1": (294, 26), "inotify_add_watch": (254, 27), "inotify_rm_watch": (255, 28),
    },
    "the machine": {
        "syslog": (103, 116), "vhangup": (153, 58), "acct": (163, 89), "reboot": (169, 142),
        "swapon": (167, 224), "swapoff": (168, 225), "sethostname": (170, 161), "setdomainname": (171, 162),
        "iopl": (172, -1), "ioperm": (173, -1), "quotactl": (179, 60), "quotactl_fd": (443, 443),
        "settimeofday": (164, 170), "adjtimex": (159, 171), "clock_settime": (227, 112),
        "clock_adjtime": (305, 266), "sync": (162, 81), "syncfs": (306, 267),
    },
    # Memory that no limit counts, and that outlives its process.
    "shared memory and queues": {
        "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "shmdt": (67, 197),
        "semget": (64, 190), "semop": (65, 193), "semtimedop": (220, 192), "semctl": (66, 191),
        "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
        "mq_open": (240, 180), "mq_unlink": (241, 181), "mq_timedsend": (242, 182),
        "mq_timedreceive": (243, 183), "mq_notify": (244, 184), "mq_getsetattr": (245, 185),
        "memfd_create": (319, 279), "memfd_secret": (447, 447),
    },
    # The limit of a file's size does not count what lies behind its end.
    "space": {"fallocate": (285, 47)},
    # Landlock does not know the first ones; the others are for kernels without it.
    "names, owners and attributes of files": {
        "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
        "chown": (92, -1), "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54),
        "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
        "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
        "getxattr": (191, 8), "lgetxattr": (192, 9), "fgetxattr": (193, 10), "listxattr": (194, 11),
        "llistxattr": (195, 12), "flistxattr": (196, 13), "getxattrat": (464, 464),
        "listxattrat": (465, 465), "removexattrat": (466, 466), "file_getattr": (468, 468),
        "file_setattr": (469, 469),
        "utime": (132, -1), "utimes": (235, -1), "futimesat": (261, -1), "utimensat": (280, 88),
        "truncate": (76, 45), "rename": (82, -1), "renameat": (264, 38), "renameat2": (316, 276),
        "mkdir": (83, -1), "mkdirat": (258, 34), "rmdir": (84, -1), "unlink": (87, -1), "unlinkat": (263, 35),
        "link": (86, -1), "linkat": (265, 37), "symlink": (88, -1), "symlinkat": (266, 36),
        "mknod": (133, -1), "mknodat": (259, 33),
    },
}  # fmt: skip
#: Refused to ffmpeg itself, but not to a script that starts it.
_PROCESSES = {"fork": (57, -1), "vfork": (58, -1), "execveat": (322, 281)}
_SIGNALLING = ((62, 129), (200, 130), (234, 131))  # kill, tkill, tgkill
_EXECVE, _CLONE, _CLONE3 = (59, 221), (56, 220), (435, 435)
_PRLIMIT, _PRCTL, _SIGACTION = (302, 261), (157, 167), (13, 134)
_AFFINITY, _PERSONALITY, _FCNTL, _IOCTL = (203, 122), (135, 92), (72, 25), (16, 29)
#: The first and the last of the numbers in between that no call has. (What has 335 and 336 on x86-64 is made
#: by the kernel itself, in programs that the system's administrator watches.)
_GAP = ((337, 423), (295, 423))
#: Numbers from here on are of calls of later kernels, of which this filter does not know what they do.
_LATER = 471


def program(machine: Machine, *, is_script: bool) -> list[Instruction]:
    """Return the filter; a script in ffmpeg's place may start other programs."""
    column = machine.column
    found: list[Instruction] = [
        (_LOAD, 0, 0, _ARCHITECTURE),
        # Another architecture's numbers mean other calls.
        (_EQUAL, 1, 0, machine.audit),
        _refusal(),
        (_LOAD, 0, 0, _NUMBER),
    ]
    if column == 0:
        found += [(_GREATER_OR_EQUAL, 0, 1, _X32), _refusal()]
    first, last = _GAP[column]
    found += [(_GREATER_OR_EQUAL, 0, 1, _LATER), _refusal(_ENOSYS)]
    found += [(_GREATER_OR_EQUAL, 0, 2, first), (_GREATER_OR_EQUAL, 1, 0, last + 1), _refusal(_ENOSYS)]
    refused = [numbers[column] for group in CALLS.values() for numbers in group.values()]
    if not is_script:
        refused += [numbers[column] for numbers in _PROCESSES.values()]
    for number in refused:
        if number >= 0:
            found += [(_EQUAL, 0, 1, number), _refusal()]
    # Not other processes' limits and processors.
    for call in (_PRLIMIT, _AFFINITY):
        found += _only(call[column], [_is(0, 0), _is(0, ("pid", 0))])
    for option in _PRCTL_REFUSED:
        found += _unless(_PRCTL[column], option, _refusal())
    found += _only(_PERSONALITY[column], [_is(0, value) for value in _PERSONALITIES])
    found += _only(_FCNTL[column], [_is(1, command) for command in _FCNTL_ALLOWED])
    found += _only(_IOCTL[column], [_is(1, command) for command in _IOCTL_ALLOWED])
    # ffmpeg has a handler for the first, and would end as if it had been asked to.
    for signal in (_SIGXCPU, _SIGXFSZ):
        found += _unless(_SIGACTION[column], signal, (_RETURN, 0, 0, _ERROR))
    if not is_script:
        for numbers in _SIGNALLING:
            found += _only(numbers[column], [_is(0, ("pid", 0))])
        found += _threads_only(column)
        found += _own_start_only(_EXECVE[column])
    return [*found, (_RETURN, 0, 0, _ALLOW)]


def _refusal(error: int = _EPERM) -> Instruction:
    return (_RETURN, 0, 0, _ERROR | error)


def _is(argument: int, value: Operand) -> tuple[Instruction, Operand]:
    """Return how to load the lower half of an argument, and what it is compared with."""
    return (_LOAD, 0, 0, _ARGUMENTS + 8 * argument), value


def _for(number: int, inner: list[Instruction]) -> list[Instruction]:
    """Return what does ``inner`` for one call; the number is loaded again behind it."""
    body = [*inner, (_LOAD, 0, 0, _NUMBER)]
    return [(_EQUAL, 0, len(body), number), *body]


def _only(number: int, allowed: list[tuple[Instruction, Operand]]) -> list[Instruction]:
    """Allow a call only if one of the comparisons holds."""
    inner: list[Instruction] = []
    for load, value in allowed:
        inner += [load, (_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return _for(number, [*inner, _refusal()])


def _unless(number: int, first: int, answer: Instruction) -> list[Instruction]:
    """Give an answer to a call with this first argument."""
    return _for(number, [(_LOAD, 0, 0, _ARGUMENTS), (_EQUAL, 0, 1, first), answer])


def _threads_only(column: int) -> list[Instruction]:
    threads: list[Instruction] = [(_LOAD, 0, 0, _ARGUMENTS), (_ANY_BIT, 1, 0, _CLONE_THREAD), _refusal()]
    return [
        *_for(_CLONE[column], threads),
        # Its flags are in memory, where a filter cannot look; without it, libraries use the other call.
        (_EQUAL, 0, 1, _CLONE3[column]),
        _refusal(_ENOSYS),
    ]


def _own_start_only(number: int) -> list[Instruction]:
    """Allow one call of execve: the launcher's, with what is at these places of its memory."""
    compared: list[Instruction] = []
    for argument, name in enumerate(("path", "arguments", "environment")):
        for half in (0, 1):
            load: Instruction = (_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4 * half)
            compared += [load, (_EQUAL, 1, 0, (name, 32 * half)), _refusal()]
    return _for(number, compared)
