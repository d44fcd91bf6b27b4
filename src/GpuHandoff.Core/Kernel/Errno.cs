namespace GpuHandoff.Kernel;

/// <summary>The error numbers that this program tells apart or says (asm-generic/errno-base.h, errno.h; x86-64).</summary>
public static class Errno
{
    public const int NotPermitted = 1;
    public const int NoEntry = 2;
    public const int NoProcess = 3;
    public const int InputOutput = 5;
    public const int NoChild = 10;
    public const int TryAgain = 11;
    public const int AccessDenied = 13;
    public const int Busy = 16;
    public const int Exists = 17;
    public const int NoDevice = 19;
    public const int NotDirectory = 20;
    public const int Invalid = 22;
    public const int NotTypewriter = 25;
    public const int NoSpace = 28;
    public const int ReadOnly = 30;
    public const int BrokenPipe = 32;
    public const int NotEmpty = 39;
    public const int Loop = 40;
    public const int ConnectionReset = 104;
    public const int NotConnected = 107;
    public const int ConnectionRefused = 111;

    /// <summary>The number's name with its meaning: <c>EBUSY (Device or resource busy)</c>.</summary>
    public static string Say(int errno) => errno switch
    {
        NotPermitted => "EPERM (Operation not permitted)",
        NoEntry => "ENOENT (No such file or directory)",
        NoProcess => "ESRCH (No such process)",
        InputOutput => "EIO (Input/output error)",
        NoChild => "ECHILD (No child processes)",
        TryAgain => "EAGAIN (Resource temporarily unavailable)",
        AccessDenied => "EACCES (Permission denied)",
        Busy => "EBUSY (Device or resource busy)",
        Exists => "EEXIST (File exists)",
        NoDevice => "ENODEV (No such device)",
        NotDirectory => "ENOTDIR (Not a directory)",
        Invalid => "EINVAL (Invalid argument)",
        NotTypewriter => "ENOTTY (Inappropriate ioctl for device)",
        NoSpace => "ENOSPC (No space left on device)",
        ReadOnly => "EROFS (Read-only file system)",
        BrokenPipe => "EPIPE (Broken pipe)",
        NotEmpty => "ENOTEMPTY (Directory not empty)",
        Loop => "ELOOP (Too many levels of symbolic links)",
        NotConnected => "ENOTCONN (Transport endpoint is not connected)",
        ConnectionReset => "ECONNRESET (Connection reset by peer)",
        ConnectionRefused => "ECONNREFUSED (Connection refused)",
        _ => $"errno {errno}",
    };
}
