using GpuHandoff.Linux.Interop;

namespace GpuHandoff.Linux;

/// <summary>Who we are.</summary>
public static class RootUser
{
    public static bool IsUs() => Libc.UserId() == 0;
}
