using GpuHandoff.Proxmox;

namespace GpuHandoff.Core.Tests.Proxmox;

public class ReadingReservations
{
    [Fact]
    public void A_running_VM_has_its_functions_by_its_process_and_a_starting_one_for_some_time() =>
        Reservations.Parse("0000:05:00.0 101 pid:4711\n0000:05:00.1 101 pid:4711\n0000:06:00.0 102 time:1765000000\n").ShouldBe(
        [
            new(new("0000:05:00.0"), 101, 4711, null),
            new(new("0000:05:00.1"), 101, 4711, null),
            new(new("0000:06:00.0"), 102, null, 1765000000),
        ]);

    [Theory]
    [InlineData("")]
    [InlineData("0000:05:00.0 101")]
    [InlineData("0000:05:00.0 101 pid:")]
    [InlineData("0000:05:00.0 101 pid:-1")]
    [InlineData("0000:05:00.0 101 since:1")]
    [InlineData("0000:05:00.0  101 pid:1")]
    [InlineData("05:00 all pid:1")]
    [InlineData("gpu 101 pid:1")]
    [InlineData("0000:05:00.0 99999999999999999999 pid:1")]
    public void A_line_that_Proxmox_skips_is_skipped(string line) =>
        Reservations.Parse($"{line}\n0000:06:00.0 102 pid:7\n").ShouldHaveSingleItem().Vm.ShouldBe(102);
}
