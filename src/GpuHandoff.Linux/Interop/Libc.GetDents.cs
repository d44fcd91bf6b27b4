using System.Runtime.InteropServices;

namespace GpuHandoff.Linux.Interop;

static partial class Libc
{
    public const int Folder = 0x10000;

    /// <summary>struct linux_dirent64: inode and offset of 8 bytes each, 2 of length, 1 of type, the name with a zero.</summary>
    public const int DirentLength = 16;
    public const int DirentName = 19;

    [LibraryImport(Library, EntryPoint = "getdents64", SetLastError = true)]
    public static partial nint GetDents(int folder, Span<byte> buffer, nint length);
}
