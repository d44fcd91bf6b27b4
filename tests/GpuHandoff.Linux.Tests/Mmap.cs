using System.Runtime.InteropServices;
using Microsoft.Win32.SafeHandles;

namespace GpuHandoff.Linux.Tests;

/// <summary>mmap(2) of one page: a mapping keeps a device open when its descriptor is closed.</summary>
static partial class Mmap
{
    public const nint MappedLength = 4096;
    public const int ReadOnly = 1;
    public const int Private = 2;

    [DllImport("libc", EntryPoint = "mmap")]
    public static extern nint Map(nint address, nint length, int protection, int flags, SafeFileHandle file, nint offset);

    [DllImport("libc", EntryPoint = "munmap")]
    public static extern int Unmap(nint address, nint length);
}
